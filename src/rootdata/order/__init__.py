"""Which event is the n-th of an epoch: arithmetic."""
