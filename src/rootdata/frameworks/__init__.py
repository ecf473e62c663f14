"""The same stream for other frameworks than Lightning, one thin adapter each."""
