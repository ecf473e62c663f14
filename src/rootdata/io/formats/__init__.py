"""The bytes of TTrees and RNTuples, decoded straight into columns."""
