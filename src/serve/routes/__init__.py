"""What the server answers over HTTP: one module for each group of paths, each with its ``OPERATIONS``."""
