"""How fast an artifact answers, and how one of its decisions came about."""
