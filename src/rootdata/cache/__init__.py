"""Decoded blocks that are kept, in memory or on local disk."""
