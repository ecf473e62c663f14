"""The other servers, each as its documentation advises, around the same graph."""
