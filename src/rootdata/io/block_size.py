"""How large a block is, where baskets and clusters leave a choice."""

# A block is read at once: large enough that the cost of a read call is small beside decompression (measured with
# benchmarks.stream), small enough that many can be open at a time.
BLOCK_BYTES = 8_000_000  # of the branches that are read, inflated
BLOCK_ENTRIES = 20_000
