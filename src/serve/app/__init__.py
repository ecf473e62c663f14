"""What answers HTTP: bounds on what may be sent, prefixes, pages of other sites, and the application itself."""
