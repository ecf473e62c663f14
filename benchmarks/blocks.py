"""One block read from its file, and from where it is kept: ``python -m benchmarks.blocks``."""

from __future__ import annotations

import argparse
import functools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.data import CLUSTER, COMPRESSION, FLAT, JAGGED, make
from rootdata.cache import blocks
from rootdata.io.block_size import BLOCK_ENTRIES
from rootdata.io.store import Store
from rootdata.io.trees import open_tree, use_fast_inflate
from rootdata.jagged import Columns
from rootdata.location import Location
from rootdata.options.read import CacheConfig

PLENTY = 10_000_000_000


def milliseconds(action: Callable[[], Any], *, rounds: int) -> list[float]:
    """Time an action again and again, what it returned dropped in between."""
    spent = []
    for _ in range(rounds):
        began = time.perf_counter()
        kept = action()
        spent.append(1000 * (time.perf_counter() - began))
        del kept
    return spent


def measure(folder: Path, *, rounds: int) -> tuple[int, dict[str, list[float]]]:
    """Return the bytes of a block, and the times of each way to get it and to keep it."""
    use_fast_inflate()
    spent, names = {}, [*FLAT, *JAGGED]
    for compression in COMPRESSION:
        path = make(folder, files=1, clusters=BLOCK_ENTRIES // CLUSTER, compression=compression)[0]
        tree = open_tree(Location(str(path)))
        columns = tree.read(names, 0, BLOCK_ENTRIES)
        spent[f"read from the file, {compression}"] = milliseconds(
            functools.partial(tree.read, names, 0, BLOCK_ENTRIES), rounds=rounds
        )
        tree.close()
    for place, where in (("memory", None), ("disk", str(folder / "blocks"))):
        store = blocks.open_store(CacheConfig(dir=where, max_bytes=PLENTY))
        assert store is not None  # a place was given
        spent[f"put, {place}"] = milliseconds(
            functools.partial(_put, store, columns, iter(range(rounds))), rounds=rounds
        )
        spent[f"get, {place}"] = milliseconds(functools.partial(store.get, "0"), rounds=10 * rounds)
    entries, size = blocks.usage(folder / "blocks")
    return size // entries, spent


def _put(store: Store, columns: Columns, keys: Iterator[int]) -> None:
    store.put(str(next(keys)), columns)


def main() -> None:
    """Print the times; the fastest tells most where a machine does something else, too."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.blocks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        size, spent = measure(Path(folder), rounds=arguments.rounds)
    words = (
        f"a block of {BLOCK_ENTRIES:,} events, {len(FLAT)} flat and {len(JAGGED)} jagged branches, {size / 1e6:.1f} MB"
    )
    table = Table("", "median, ms", "fastest, ms", title=words)
    for name, times in spent.items():
        table.add_row(name, f"{statistics.median(times):.1f}", f"{min(times):.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
