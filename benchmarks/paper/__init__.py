"""The validation of the MLaaS4HEP paper, by one command: ``python -m benchmarks.paper``."""
