"""What answers are worth, and what they have to beat."""
