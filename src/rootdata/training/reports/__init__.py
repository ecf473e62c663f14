"""What a test writes beside its metrics, a file for each kind of report."""
