"""One folder to a model that has proven itself here, and that model's decisions."""
