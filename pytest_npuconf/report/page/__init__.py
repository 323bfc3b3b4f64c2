"""The HTML report of a run: one file that opens offline. ``npuconf report`` and ``--npuconf-report``."""
