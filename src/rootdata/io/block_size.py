"""How large a block is, where baskets and clusters leave a choice."""

# A block is read at once: large enough that the cost of a read call is small beside decompression (measured with
# benchmarks.stream), small enough that many can be open at a time.
BLOCK_BYTES = 8_000_000  # of the branches that are read, inflated
BLOCK_ENTRIES = 20_000
LEAST_ENTRIES = 1000


def entries_of_block(bytes_per_entry: float, *, most: int = BLOCK_ENTRIES) -> int:
    """Return how many entries a block has, about.

    Parameters
    ----------
    bytes_per_entry : of the branches that are read, inflated
    most : entries, however small they are
    """
    return min(most, max(LEAST_ENTRIES, int(BLOCK_BYTES / max(1.0, bytes_per_entry))))
