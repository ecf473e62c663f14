"""How good a network is, on one page."""
