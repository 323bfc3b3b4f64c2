"""Reading a model card of any layout and recomputing what it says. Pure Python: neither torch nor numpy."""
