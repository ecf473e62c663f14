"""What is in files, and a data configuration made of it."""
