"""What a result was measured on and with: versions, device, settings, each with where it was read."""
