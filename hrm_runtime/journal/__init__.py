"""What an engine was told and what it answered, durably, and read back."""
