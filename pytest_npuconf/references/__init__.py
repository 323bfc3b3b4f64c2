"""References: the same weights computed in float32 on the CPU, live; stored ones follow."""
