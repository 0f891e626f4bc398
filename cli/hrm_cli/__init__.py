"""The command line: the only package that prints, colours and exits."""
