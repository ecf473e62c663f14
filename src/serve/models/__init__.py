"""Models on disk and in memory: versions, aliases, trash; sessions; what is run on them."""
