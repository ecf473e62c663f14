"""Reading over XRootD, at once and with a round trip of 20 ms, beside local files: ``python -m benchmarks.remote``.

The server and a proxy that delays are started on loopback. All 18 branches of a file are read, block by block.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.data import FLAT, JAGGED, make

NAMES = [*FLAT, *JAGGED]


def ours(url: str, threads: int) -> tuple[int, int]:
    """Read as the package does; return events and requests."""
    from concurrent.futures import ThreadPoolExecutor

    from rootdata.io.tree_pool import TreePool
    from rootdata.io.trees import blocks_of, use_fast_inflate
    from rootdata.location import Location

    use_fast_inflate()
    where = Location(url)
    with TreePool() as opener, ThreadPoolExecutor(threads) as pool:
        blocks = opener.use(where, lambda tree: blocks_of(tree, NAMES))

        def read(block: tuple[int, int]) -> int:
            return len(opener.use(where, lambda tree: tree.read(NAMES, *block))["x0"])

        events = sum(pool.map(read, blocks))
        idle: list[Any] = list(opener._idle)  # noqa: SLF001
        return events, sum(tree._file.file.source.num_requests for tree in idle)  # noqa: SLF001


def bare(url: str, block: int = 20_000) -> tuple[int, int]:
    """Read with uproot alone, block by block."""
    import uproot
    from uproot.source.fsspec import FSSpecSource

    from rootdata.io import remote
    from rootdata.location import is_remote

    remote.filesystem(url) if is_remote(url) else None
    options = {"handler": FSSpecSource} if is_remote(url) else {}
    with uproot.open({url: None}, **options) as file:
        tree = file["Events"]
        names = [n.replace("Jet_", "Jet.") if "Jet." + n[4:] in tree.keys() else n for n in NAMES]  # noqa: SIM118
        for start in range(0, tree.num_entries, block):
            for name in names if "RNTuple" in tree.classname else [names]:
                stop = start + block
                if isinstance(name, str):
                    tree[name].array(entry_start=start, entry_stop=stop)
                else:
                    tree.arrays(name, entry_start=start, entry_stop=stop, how=dict)
        return tree.num_entries, file.file.source.num_requests


def epochs(base: str, path: Path, *, cache: dict[str, str] | None = None) -> tuple[float, float]:
    """Stream two epochs; return the events a second of each."""
    from benchmarks.data import options
    from rootdata.loading.dataset import RootDataset

    given = options([path], rntuple="rntuple" in path.name)
    samples = {"all": {"files": f"{base}/{path.name}", "label": 0}}
    events = RootDataset({**given, "samples": samples}, cache=cache)
    found = []
    for _ in range(2):
        before = time.perf_counter()
        count = sum(len(batch["label"]) for batch in events)
        found.append(count / (time.perf_counter() - before))
    return found[0], found[1]


def main() -> None:
    """Print the figures as a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.remote", description=__doc__)
    parser.add_argument("--clusters", type=int, default=20, help="of 10,000 events, in each file")
    parser.add_argument("--round-trip", type=float, default=20.0, help="ms")
    parser.add_argument("--threads", type=int, default=4)
    given = parser.parse_args()
    sys.path.append(str(Path(__file__).parents[1] / "tests" / "rootdata"))  # the servers are those of the tests
    from servers_for_tests import Proxy, XRootDServer

    with tempfile.TemporaryDirectory() as folder:
        paths = {k: make(Path(folder), files=1, clusters=given.clusters, rntuple=k == "RNTuple")[0]
                 for k in ("TTree", "RNTuple")}  # fmt: skip
        with XRootDServer(Path(folder)) as server, Proxy(server.port, delay=given.round_trip / 2000) as proxy:
            far = server.url.replace(str(server.port), str(proxy.port))
            where = {"local": folder, "root://": server.url, f"root://, {given.round_trip:g} ms": far}
            print(f"{'':28}{'rootdata':>12}{'requests':>10}{'uproot':>12}{'requests':>10}   events/s, requests")
            for kind, path in paths.items():
                for name, base in where.items():
                    row = [
                        _measured(ours, f"{base}/{path.name}", given.threads),
                        _measured(bare, f"{base}/{path.name}"),
                    ]
                    print(f"{kind:8} {name:18} {''.join(f'{rate:12,.0f}{n:10}' for rate, n in row)}", flush=True)
            print(f"\n{'epochs of RootDataset':36}{'first':>12}{'second':>12}   events/s")
            for kind, path in paths.items():
                for name, base, cache in (
                    ("local", folder, None),
                    (f"{given.round_trip:g} ms", far, None),
                    (f"{given.round_trip:g} ms, cache on disk", far, {"dir": f"{folder}/blocks"}),
                ):
                    rates = epochs(base, path, cache=cache)
                    print(f"{kind:8} {name:27}{''.join(f'{rate:12,.0f}' for rate in rates)}", flush=True)


def _measured(read: object, url: str, *more: int) -> tuple[float, int]:
    before = time.perf_counter()
    events, requests = read(url, *more)  # type: ignore[operator]
    return events / (time.perf_counter() - before), requests


if __name__ == "__main__":
    main()
