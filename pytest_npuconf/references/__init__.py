"""References: the same weights in float32 on the CPU, computed live or stored, and the rules of what may be compared."""
