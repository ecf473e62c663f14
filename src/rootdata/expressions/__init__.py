"""The language of cuts and derived columns."""
