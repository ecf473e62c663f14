"""The prediction server beside others, in one run: ``python -m benchmarks.serve``."""
