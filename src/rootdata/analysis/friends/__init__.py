"""Scores beside the events: a friend tree for each file, entry by entry."""
