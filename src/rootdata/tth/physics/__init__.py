"""Events of the ttH(bb) samples: hard processes, showers, a detector, and what an analysis makes of them."""
