"""``npuconf card``: the Markdown card of a run."""
