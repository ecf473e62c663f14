"""Tables in files of other kinds than ROOT's: Parquet, Arrow, CSV. They are read as trees are."""
