"""Damage files where they say how long things are and where they lie, and read them: run in a process of its own.

``python damage_for_tests.py FOLDER SEED COUNT`` makes files, damages them COUNT times, with checksums and compression
made right again, and prints for each time a line of JSON: what was done, and what reading told, twice.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import random
import resource
import signal
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cramjam
import numpy as np
import uproot
import xxhash
from files_for_tests import lists_of, write

from rootdata.errors import RootDataError
from rootdata.io.formats.inflate import inflate
from rootdata.io.trees import open_tree
from rootdata.jagged import digest
from rootdata.location import Location

SHIPPED = Path(__file__).parents[1] / "data"
SECONDS = 20  # a read that takes as long hangs
CODECS = {"none": None, "zlib": uproot.ZLIB(1), "zstd": uproot.ZSTD(1), "lz4": uproot.LZ4(1), "lzma": uproot.LZMA(1)}

Mutant = tuple[str, str, Callable[[], dict[str, Any]]]
"""What was done, the branch or the tree that an error must name, and how the columns are read."""


def wrong(value: int, rng: random.Random) -> int:
    """Return another number than a 32-bit one: near to it, far from it, or at the end of what there is."""
    near = [value + step for step in (-16, -8, -4, -1, 1, 4, 8, 16)]
    far = [0, -1, 2**31 - 1, -(2**31), rng.randrange(-(2**31), 2**31), value ^ 1 << rng.randrange(32)]
    return rng.choice([v for v in near + far if v % 2**32 != value % 2**32]) % 2**32


def replaced(content: bytes, at: int, rng: random.Random, *, order: str = ">") -> bytes:
    """Put another number into four bytes."""
    changed = bytearray(content)
    struct.pack_into(f"{order}I", changed, at, wrong(struct.unpack_from(f"{order}I", content, at)[0], rng))
    return bytes(changed)


def packed(content: bytes, how: str) -> bytes:
    """Compress as ROOT does, or not where that gains nothing."""
    data = {"ZL": lambda: zlib.compress(content, 1), "ZS": lambda: bytes(cramjam.zstd.compress(content))}[how]()
    sizes = len(data).to_bytes(3, "little") + len(content).to_bytes(3, "little")
    whole = how.encode() + b"\1" + sizes + data
    return whole if len(whole) < len(content) else content


# Baskets


def basket_mutants(path: Path, tree: Any, rng: random.Random) -> Iterator[Mutant]:
    """Damage baskets of a TTree, each appended to a copy of the file, which the table of its branch then names."""
    whole = path.read_bytes()
    names = [n for n in tree.names() if tree.describe(n).kind != "unusable" and len(tree._table(n).seeks)]
    copy = path.with_suffix(".damaged")
    while True:
        name = rng.choice(names)
        table = tree._table(name)
        k = rng.randrange(len(table.seeks))
        at, size = int(table.seeks[k]), int(table.nbytes[k])
        what, made = damaged_basket(whole[at : at + size], table, rng)
        copy.write_bytes(whole + made)
        seeks, nbytes = table.seeks.copy(), table.nbytes.copy()
        seeks[k], nbytes[k] = len(whole), len(made)
        lying = dataclasses.replace(table, seeks=seeks, nbytes=nbytes)
        yield f"{path.name} {tree.location.tree} {name}: {what}", name, reading(copy, tree, name, lying)


def reading(copy: Path, tree: Any, name: str, table: Any) -> Callable[[], dict[str, Any]]:
    def read() -> dict[str, Any]:
        opened: Any = open_tree(Location(str(copy), tree.location.tree))
        opened._tables[name] = table
        try:
            return opened.read([name], 0, opened.num_entries)
        finally:
            opened.close()

    return read


def damaged_basket(stored: bytes, table: Any, rng: random.Random) -> tuple[str, bytes]:
    """Damage one basket: its key, its compression, the positions of its lists, or what these say of themselves."""
    size, keylen = struct.unpack_from(">i", stored, 6)[0], struct.unpack_from(">h", stored, 14)[0]
    data = inflate(memoryview(stored)[keylen:], size).tobytes()
    border = struct.unpack_from(">i", stored, keylen - 5)[0] - keylen
    places = {"header": [0, 6, 12, keylen - 9, keylen - 5]}
    if len(stored) - keylen != size:
        places["compression"] = [keylen + i for i in range(9)]
    what = rng.choice(["header", *(["compression"] * ("compression" in places)), "positions", "vector", "length"])
    if what in places:
        at = rng.choice(places[what])
        return f"{what} at {at}", replaced(stored, at, rng)
    if what == "positions" and len(data) > border:
        at = border + 4 * rng.randrange((len(data) - border) // 4)
        return f"position at {at}", rebuilt(stored, keylen, replaced(data, at, rng), rng)
    if what == "vector" and table.header == 10:
        entries = struct.unpack_from(">i", stored, keylen - 9)[0]
        starts = np.frombuffer(data[border:], ">i4")[1 : entries + 1] - keylen
        at = int(rng.choice(list(starts))) + rng.choice([0, 6])
        return f"vector at {at}", rebuilt(stored, keylen, replaced(data, at, rng), rng)
    cut = rng.randrange(len(data) + 1)
    changed = data[:cut] if rng.random() < 0.5 else data + bytes(rng.randrange(1, 40))
    return f"length {len(data)} becomes {len(changed)}", rebuilt(stored, keylen, changed, rng)


def rebuilt(stored: bytes, keylen: int, data: bytes, rng: random.Random) -> bytes:
    """Compress a basket anew, and let its key say so."""
    body = packed(data, rng.choice(["ZL", "ZS"]))
    made = bytearray(stored[:keylen] + body)
    struct.pack_into(">i", made, 0, len(made))
    struct.pack_into(">i", made, 6, len(data))
    return bytes(made)


def table_mutants(path: Path, tree: Any, rng: random.Random) -> Iterator[Mutant]:
    """Let what describes a branch say something else of where its baskets are."""
    names = [n for n in tree.names() if tree.describe(n).kind != "unusable" and len(tree._table(n).seeks)]
    others = [int(s) for n in names for s in tree._table(n).seeks]
    while True:
        name, member = rng.choice(names), rng.choice(["fBasketSeek", "fBasketBytes", "fBasketEntry"])
        k = rng.randrange(len(tree._table(name).seeks) + (member == "fBasketEntry"))
        is_swap = member == "fBasketSeek" and rng.random() < 0.5

        def read(name: str = name, member: str = member, k: int = k, to: int | None = None) -> dict[str, Any]:
            opened: Any = open_tree(Location(str(path), tree.location.tree))
            branch = opened._source[opened.key_of(name)]
            numbers = np.array(branch.member(member))
            numbers[k] = to
            holder = branch if member in branch._members else branch._bases[0]
            holder._members[member] = numbers
            try:
                return opened.read([name], 0, opened.num_entries)
            finally:
                opened.close()

        before = int(tree._source[tree.key_of(name)].member(member)[k])
        signed = (wrong(before, rng) + 2**31) % 2**32 - 2**31
        to = rng.choice([s for s in others if s != before]) if is_swap else signed
        told = f"{path.name} {tree.location.tree} {name}: {member}[{k}] {before} becomes {to}"
        yield told, name, functools.partial(read, to=to)


# RNTuples


def ntuple_mutants(path: Path, tree: Any, rng: random.Random) -> Iterator[Mutant]:
    """Damage the page lists of an RNTuple, or the footer, and let everything that points to them follow."""
    whole, copy = path.read_bytes(), path.with_suffix(".damaged")
    ntuple, name = tree._source, tree.location.tree
    names = [n for n in tree.names() if tree.describe(n).kind != "unusable"]

    def read() -> dict[str, Any]:
        opened = open_tree(Location(str(copy), name))
        try:
            return opened.read(names, 0, opened.num_entries)
        finally:
            opened.close()

    while True:
        records = ntuple.footer.cluster_group_records
        link = records[rng.randrange(len(records))].page_list_link
        place = link.locator
        envelope = inflate(memoryview(whole)[place.offset : place.offset + place.num_bytes], link.env_uncomp_size)
        if rng.random() < 0.8:
            at = rng.randrange(0, len(envelope) - 11)
            changed = replaced(envelope.tobytes(), at, rng, order="<")
            what = f"page list at {at}"
            copy.write_bytes(with_page_list(whole, ntuple, link, changed, rng))
        else:
            seek, size = ntuple.member("fSeekFooter"), ntuple.member("fNBytesFooter")
            footer = inflate(memoryview(whole)[seek : seek + size], ntuple.member("fLenFooter")).tobytes()
            linked = footer.index(struct.pack("<QiQ", link.env_uncomp_size, place.num_bytes, place.offset))
            at = rng.choice([linked - 20, linked - 12, linked - 4, linked, linked + 8, linked + 12])
            what = f"footer at {at}"
            copy.write_bytes(with_footer(whole, ntuple, replaced(footer, at, rng, order="<")))
        yield f"{path.name} {name}: {what}", name, read


def sealed(envelope: bytes) -> bytes:
    """Give an envelope its checksum."""
    return envelope[:-8] + struct.pack("<Q", xxhash.xxh3_64_intdigest(envelope[:-8]))


def with_page_list(whole: bytes, ntuple: Any, link: Any, envelope: bytes, rng: random.Random) -> bytes:
    envelope = sealed(envelope)
    body = packed(envelope, rng.choice(["ZL", "ZS"]))
    seek, size = ntuple.member("fSeekFooter"), ntuple.member("fNBytesFooter")
    footer = inflate(memoryview(whole)[seek : seek + size], ntuple.member("fLenFooter")).tobytes()
    old = struct.pack("<QiQ", link.env_uncomp_size, link.locator.num_bytes, link.locator.offset)
    footer = footer.replace(old, struct.pack("<QiQ", len(envelope), len(body), len(whole)))
    return with_footer(whole + body, ntuple, footer)


def with_footer(whole: bytes, ntuple: Any, footer: bytes) -> bytes:
    form = struct.Struct(">HHHHQQQQQQQ")
    names = ["fVersionEpoch", "fVersionMajor", "fVersionMinor", "fVersionPatch", "fSeekHeader", "fNBytesHeader",
             "fLenHeader", "fSeekFooter", "fNBytesFooter", "fLenFooter", "fMaxKeySize"]  # fmt: skip
    members = {n: int(ntuple.member(n)) for n in names}
    old = form.pack(*members.values())
    assert whole.count(old) == 1
    footer = sealed(footer)
    new = form.pack(
        *(members | {"fSeekFooter": len(whole), "fNBytesFooter": len(footer), "fLenFooter": len(footer)}).values()
    )
    at = whole.index(old)
    checked = new + struct.pack(">Q", xxhash.xxh3_64_intdigest(new))
    return whole[:at] + checked + whole[at + len(checked) :] + footer


# Trying them


def bases(folder: Path) -> Iterator[tuple[Path, str]]:
    """Make and list the files to damage, and the trees in them."""
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 5, 400)
    columns = {"x": rng.normal(size=400), "flag": rng.integers(0, 2, 400).astype(bool),
               "fixed": rng.integers(0, 9, (400, 3)).astype(np.int16),
               "Jet": {"pt": lists_of(rng.integers(0, 50, counts.sum()).astype(np.float32), counts)},
               "y": lists_of(rng.integers(0, 9, counts.sum()), counts)}  # fmt: skip
    for codec, compression in CODECS.items():
        for kind in ("TTree", "RNTuple"):
            path = folder / f"{kind}_{codec}.root"
            yield write(path, columns, kind=kind, steps=(100, 130), compression=compression), "Events"
    for file, trees in {"trees": ["plain", "bare", "circular"], "ntuples": ["inside", "between", "ways"],
                        "unclosed": ["plain"]}.items():  # fmt: skip
        path = folder / f"{file}.root"
        path.write_bytes((SHIPPED / path.name).read_bytes())
        for tree in trees:
            yield path, tree


def outcome(read: Callable[[], dict[str, Any]]) -> tuple[str, str]:
    """Return ``values`` and their digest, ``error`` and its sentence, or ``raw`` and what was raised."""
    try:
        return "values", json.dumps({n: digest({n: c}) for n, c in read().items()}, sort_keys=True)
    except RootDataError as error:
        return "error", str(error)
    except Exception as error:  # noqa: BLE001 - this is what must not be
        return "raw", f"{type(error).__name__}: {error}"


def main(folder: Path, seed: int, count: int) -> None:
    """Damage files and print what reading them tells."""
    rng = random.Random(seed)
    makers: list[tuple[Iterator[Mutant], dict[str, str]]] = []
    for path, name in bases(folder):
        tree = open_tree(Location(str(path), name))
        usable = [n for n in tree.names() if tree.describe(n).kind != "unusable"]
        right = {n: digest({n: c}) for n, c in tree.read(usable, 0, tree.num_entries).items()}
        kinds = [ntuple_mutants] if hasattr(tree, "_clusters") else [basket_mutants, table_mutants]
        makers += [(kind(path, tree, rng), right) for kind in kinds]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for i in range(count):
        mutants, right = makers[i % len(makers)]
        what, named, read = next(mutants)
        print(json.dumps({"trying": what}), flush=True)
        signal.alarm(SECONDS)
        first, second = outcome(read), outcome(read)
        signal.alarm(0)
        is_right = first[0] == "values" and json.loads(first[1]).items() <= right.items()
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(json.dumps({"what": what, "named": named, "first": first, "second": second, "is_right": is_right,
                          "grown": grown}), flush=True)  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
