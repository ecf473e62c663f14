"""Terms of a loss beside how well labels and targets are predicted."""
