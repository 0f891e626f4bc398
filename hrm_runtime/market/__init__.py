"""What a market and a host say, as training and serving both read it."""
