"""Request bodies to arrays and scores to answers: pure functions, one module for each format."""
