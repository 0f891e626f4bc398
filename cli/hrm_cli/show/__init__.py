"""What a person sees: tables on stdout, progress and notes on stderr, pictures in files."""
