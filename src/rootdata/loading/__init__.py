"""Batches for torch and Lightning."""
