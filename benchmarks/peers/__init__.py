"""Other libraries that make padded batches from ROOT files, in the same run: ``python -m benchmarks.peers``."""
