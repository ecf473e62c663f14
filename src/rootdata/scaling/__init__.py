"""How the values of a column become network inputs: learnt from the specs, applied, inverted, and put into graphs."""
