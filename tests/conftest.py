"""One hypothesis profile for every test: the same examples on every machine, and no clock in the verdict."""

from hypothesis import settings

settings.register_profile("npuconf", derandomize=True, deadline=None, database=None, max_examples=60)
settings.load_profile("npuconf")
