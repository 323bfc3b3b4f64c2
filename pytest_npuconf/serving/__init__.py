"""What is asked of a served model, and what must come back."""
