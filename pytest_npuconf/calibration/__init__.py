"""How far benign variants of a candidate go on the device under test: evidence for the bounds, never one of them."""
