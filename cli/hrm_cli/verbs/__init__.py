"""The verbs, one in each module: its options, one library call, and what is said of it."""
