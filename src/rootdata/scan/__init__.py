"""The first pass over the files, and what it learns."""
