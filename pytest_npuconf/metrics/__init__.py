"""Pure functions on arrays. No pytest, no engine, no torch device."""
