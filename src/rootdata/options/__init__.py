"""Options, parsed and checked once."""
