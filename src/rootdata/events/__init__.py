"""From the columns of a block to its selected events: cuts, split, weights, statistics, scaling."""
