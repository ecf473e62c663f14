import gzip
import io
import zipfile

import numpy as np
import pytest

from rootdata.io.formats.signatures import LENGTH, why_not_root


def zipped():
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("a.root", b"root")
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (gzip.compress(b"root"), "gzip"),
        (zipped(), "zip"),
        (b"\xef\xbb\xbf <!DOCTYPE html>", "web page"),
        (b"\n<HTML><body>", "web page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code>', "XML"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"PAR1", "Parquet"),
        (b"root:x:0:0:root:/root:/bin/bash\n", "this is not a ROOT file; "),
        (b"roots of polynomials", "this is not a ROOT file; "),
        (b"hello", "this is not a ROOT file; "),
        (b"", "the file is empty"),
    ],
    ids=lambda value: value if isinstance(value, str) else "bytes",  # some of which hold the time
)
def test_what_a_file_is_instead_is_said(content, said):
    sentence = why_not_root(content[:LENGTH])
    assert said in sentence
    assert sentence.endswith("; replace or remove the file")
    assert "damaged" not in sentence


def test_a_root_file_is_none_of_these(tmp_path, write_tree):
    assert why_not_root(write_tree(tmp_path / "a.root", {"x": np.zeros(3)}).read_bytes()[:LENGTH]) == ""
