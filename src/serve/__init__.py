"""The prediction server's package: a model repository and an HTTP server for bundles made by ``rootdata``."""
