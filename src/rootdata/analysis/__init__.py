"""Scores back beside the events: friend trees, folds, reports."""
