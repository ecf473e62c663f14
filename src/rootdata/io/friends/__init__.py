"""What stands beside the branches of a tree: the numbers of its entries, and friend trees."""
