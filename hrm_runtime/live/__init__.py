"""Closed bars in, decisions out, while the host runs; the same again from a journal."""
