"""Reading ROOT files, local and remote: what is in them, and the columns of a range of entries."""
