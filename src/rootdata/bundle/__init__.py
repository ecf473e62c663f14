"""From a trained network to a bundle: a graph with its preprocessing, and what is needed to use it."""
