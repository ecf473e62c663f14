"""Archives give plain files of known names, or a sentence; nothing lands outside the folder."""

from __future__ import annotations

import contextlib
import gzip
import io
import tarfile
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.errors import InvalidModel, TooLarge
from serve.upload import archives, check
from serve.upload.check import Limits

GOOD = {"model.onnx": b"graph", "manifest.json": b"{}"}


def tar(path, members, *, mode="w"):
    with tarfile.open(path, mode) as file:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, tarfile.TarInfo):
                content.name = name
                file.addfile(content)
            else:
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
    return path


def zipped(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members:
            file.writestr(name, content)
    return path


WRITERS = {
    "tar": tar,
    "tar.gz": lambda path, members: tar(path, members, mode="w:gz"),
    "zip": zipped,
}


@pytest.fixture
def into(tmp_path):
    (tmp_path / "into").mkdir()
    return tmp_path / "into"


def entry(kind, target=""):
    info = tarfile.TarInfo()
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize("prefix", ["", "./", "bundle/", "./bundle/"])
@pytest.mark.parametrize("kind", WRITERS)
def test_bundles_are_unpacked_in_a_child(tmp_path, into, kind, prefix):
    members = [(prefix + name, content) for name, content in GOOD.items()]
    archive = WRITERS[kind](tmp_path / "archive", members)
    assert check.unpack(archive, into) == list(GOOD)
    assert {p.name: p.read_bytes() for p in into.iterdir()} == GOOD


def test_the_form_of_tfaas(tmp_path, into):
    members = [("ttH/keras.onnx", b"graph"), ("ttH/params.json", b"{}"), ("ttH/labels.csv", b"a,b")]
    assert check.unpack(tar(tmp_path / "a", members), into) == ["model.onnx", "params.json", "labels.txt"]


PATHS = ["../model.onnx", "/model.onnx", "a/../model.onnx", "a/b/model.onnx", "..\\model.onnx", "C:model.onnx",
         "a//model.onnx", "././model.onnx", "..", "weights.bin", "model.onnx.exe", ".model",
         "manifest.json\n"]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_no_path_leaves_the_folder(tmp_path, into, kind, path):
    archive = WRITERS[kind](tmp_path / "archive", [*GOOD.items(), (path, b"evil")])
    with pytest.raises(InvalidModel, match=r"in one folder|does not belong"):
        archives.unpack(archive, into, max_bytes=1000)
    assert {p.name for p in into.iterdir()} <= set(GOOD)
    assert {p.name for p in tmp_path.iterdir()} == {"archive", "into"}


@pytest.mark.parametrize(
    "info",
    [
        entry(tarfile.SYMTYPE, "/etc/passwd"),
        entry(tarfile.LNKTYPE, "model.onnx"),
        entry(tarfile.FIFOTYPE),
        entry(tarfile.CHRTYPE),
        entry(tarfile.BLKTYPE),
        entry(tarfile.CONTTYPE),
    ],
)
def test_links_and_devices_in_tar(tmp_path, into, info):
    archive = tar(tmp_path / "archive", [*GOOD.items(), ("preprocess.json", info)])
    with pytest.raises(InvalidModel, match="no plain file; links and devices"):
        archives.unpack(archive, into, max_bytes=1000)


def test_links_in_zip(tmp_path, into):
    info = zipfile.ZipInfo("model.onnx")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "archive", "w") as file:
        file.writestr(info, "/etc/passwd")
    with pytest.raises(InvalidModel, match="no plain file; links and devices"):
        archives.unpack(tmp_path / "archive", into, max_bytes=1000)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_file_comes_once(tmp_path, into, kind):
    archive = WRITERS[kind](tmp_path / "archive", [("a.onnx", b"1"), ("b.onnx", b"2")])
    with pytest.raises(InvalidModel, match=r"holds model\.onnx twice"):
        archives.unpack(archive, into, max_bytes=1000)
    assert (into / "model.onnx").read_bytes() == b"1"


@pytest.mark.parametrize("kind", WRITERS)
def test_bombs(tmp_path, into, kind):
    archive = WRITERS[kind](tmp_path / "archive", [("model.onnx", bytes(60_000_000))])
    limit = 50_000_000
    with pytest.raises(TooLarge, match="unpacks to more than"):
        archives.unpack(archive, into, max_bytes=limit)
    assert sum(p.stat().st_size for p in into.iterdir()) <= limit
    if kind != "tar":  # 60 MB of nothing from 60 kB
        for path in into.iterdir():
            path.unlink()
        with pytest.raises(TooLarge, match="unpacks to more than"):
            archives.unpack(archive, into, max_bytes=10**9)


def test_a_zip_that_lies_about_its_sizes(tmp_path, into):
    archive = zipped(tmp_path / "archive", [("model.onnx", bytes(20_000_000))])
    archive.write_bytes(archive.read_bytes().replace((20_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with pytest.raises((InvalidModel, TooLarge)):
        archives.unpack(archive, into, max_bytes=1_000_000)
    assert sum(p.stat().st_size for p in into.iterdir()) <= 1_000_000


@pytest.mark.long
def test_a_header_of_gigabytes_is_met_by_the_childs_limit(tmp_path, into):
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 3_000_000_000
    with gzip.open(tmp_path / "archive", "wb", 1) as file:
        file.write(info.tobuf(tarfile.USTAR_FORMAT))
        for _ in range(120):
            file.write(bytes(10_000_000))
    with pytest.raises((InvalidModel, TooLarge)):
        check.unpack(tmp_path / "archive", into, limits=Limits(seconds=30))
    assert list(into.iterdir()) == []


def test_too_many_members(tmp_path, into):
    members = [(f"d{i}", entry(tarfile.DIRTYPE)) for i in range(40)]
    with pytest.raises(TooLarge, match="more than 32 members"):
        archives.unpack(tar(tmp_path / "archive", members), into, max_bytes=1000)


@pytest.mark.parametrize("kind", WRITERS)
def test_an_archive_without_a_graph(tmp_path, into, kind):
    archive = WRITERS[kind](tmp_path / "archive", [("manifest.json", b"{}")])
    with pytest.raises(InvalidModel, match=r"holds no \*\.onnx"):
        archives.unpack(archive, into, max_bytes=1000)


def test_what_is_no_archive(tmp_path, into):
    for content in (b"", b"hello", b"PK", b"\x1f\x8b", bytes(1000), b"PK\x05\x06" + bytes(18)):
        (tmp_path / "archive").write_bytes(content)
        with pytest.raises(InvalidModel, match=r"no archive|can't be read|holds no"):
            archives.unpack(tmp_path / "archive", into, max_bytes=1000)


@given(st.sampled_from(list(WRITERS)), st.lists(st.tuples(st.integers(0, 10**6), st.binary(min_size=1, max_size=4))))
def test_damaged_archives_give_a_sentence(tmp_path_factory, kind, damages):
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "into").mkdir()
    archive = WRITERS[kind](
        folder / "archive", [*GOOD.items(), ("preprocess.json", np.random.default_rng(1).bytes(3000))]
    )
    content = bytearray(archive.read_bytes())
    for place, patch in damages:
        at = place % len(content)
        content[at : at + len(patch)] = patch
    archive.write_bytes(bytes(content))
    with contextlib.suppress(InvalidModel, TooLarge):
        archives.unpack(archive, folder / "into", max_bytes=100_000)
    assert {p.name for p in (folder / "into").iterdir()} <= set(archives.BUNDLE)
    assert {p.name for p in folder.iterdir()} == {"archive", "into"}
