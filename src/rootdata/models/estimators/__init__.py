"""Models of other libraries, trained and tested like networks: boosted trees, and what scikit-learn has."""
