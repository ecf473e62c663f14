"""How processes end on a signal, and the other ranks with them."""
