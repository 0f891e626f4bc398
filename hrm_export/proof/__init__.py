"""The graph held against torch, and the windows that prove it wherever it is loaded."""
