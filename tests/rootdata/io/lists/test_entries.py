import json

import pytest

from rootdata.io.lists.entries import ListError, entries_of, is_list

EOS = "root://eospublic.cern.ch//eos/opendata/cms/a"
RUCIO = """\
+--------------+--------------------------+------------+-----------+------------------------------------------------+
| SCOPE        | NAME                     | FILESIZE   | ADLER32   | RSE: REPLICA                                   |
|--------------+--------------------------+------------+-----------+------------------------------------------------|
| mc20_13TeV   | DAOD_PHYSLITE.1.root.1   | 1.203 GB   | ad1f2c3b  | CERN: root://eosatlas.cern.ch:1094//eos/1.root |
| mc20_13TeV   | DAOD_PHYSLITE.1.root.1   | 1.203 GB   | ad1f2c3b  | BNL: davs://dcgftp.usatlas.bnl.gov:443/1.root  |
| mc20_13TeV   | DAOD_PHYSLITE.1.root.1   | 1.203 GB   | ad1f2c3b  | BNL: https://dcgftp.usatlas.bnl.gov/1.root     |
| mc20_13TeV   | DAOD_PHYSLITE.2.root.1   | 1.203 GB   | 0d1f2c3b  | BNL: davs://dcgftp.usatlas.bnl.gov:443/2.root  |
+--------------+--------------------------+------------+-----------+------------------------------------------------+
"""


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("", []),
        ("# only words\n\n", []),
        (f"{EOS}/1.root\r\n\r\n  # not this\r\n{EOS}/2.root", [f"{EOS}/1.root", f"{EOS}/2.root"]),
        ("data/a#1.root\n[ab].root:Events\n", ["data/a#1.root", "[ab].root:Events"]),
        (
            RUCIO,
            [
                ("root://eosatlas.cern.ch:1094//eos/1.root", "https://dcgftp.usatlas.bnl.gov/1.root"),
                "davs://dcgftp.usatlas.bnl.gov:443/2.root",
            ],
        ),
        ("| root://host//a.root |\n| root://host//b.root |\n", ["root://host//a.root", "root://host//b.root"]),
    ],
)
def test_a_text_names_a_path_a_line(text, entries):
    assert entries_of(text) == entries


@pytest.mark.parametrize(
    ("plain", "entries"),
    [
        # a file index of CERN Open Data, as CMS publishes it
        (
            [{"checksum": "adler32:1", "size": 12, "uri": f"{EOS}/{i}.root"} for i in range(2)],
            [f"{EOS}/0.root", f"{EOS}/1.root"],
        ),
        # a record of CERN Open Data: what its indices hold, and not the indices themselves
        (
            {
                "id": 5,
                "metadata": {
                    "files": [{"uri": f"{EOS}/file_index.json"}],
                    "_file_indices": [{"key": "i.json", "files": [{"uri": f"{EOS}/1.root"}, {"uri": f"{EOS}/2.root"}]}],
                },
            },
            [f"{EOS}/1.root", f"{EOS}/2.root"],
        ),
        ({"metadata": {"files": [{"key": "a.root", "uri": f"{EOS}/a.root"}]}}, [f"{EOS}/a.root"]),
        # the catalogue of CMS, and Rucio's replicas in its two forms
        ([{"file": [{"name": "/store/mc/a.root", "nevents": 5}]}], ["/store/mc/a.root"]),
        (
            [{"scope": "mc", "name": "a.root.1", "pfns": {"root://x//a": {"rse": "X"}, "srm://y/a": {"rse": "Y"}}}],
            ["root://x//a"],
        ),
        ([{"name": "a", "rses": {"X": ["root://x//a"], "Y": ["https://y/a"]}}], [("root://x//a", "https://y/a")]),
        # file sets of coffea and uproot
        (
            {"ttH": {"metadata": {"xsec": 5}, "files": {"a.root": "Events", "b.root": None}}},
            ["a.root:Events", "b.root"],
        ),
        ({"ttH": {"files": {"a.root": {"object_path": "Events", "steps": [[0, 5]]}}}}, ["a.root:Events"]),
        ({"ttH": ["a.root", "b.root"]}, ["a.root", "b.root"]),
        (["a.root", "b.parquet"], ["a.root", "b.parquet"]),
        ([], []),
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_json_names_files_as_catalogues_do(plain, entries, indent):
    assert entries_of(json.dumps(plain, indent=indent)) == entries


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1, 2]", "names no file"),
        ('{"ttH": ["a.root"], "ttbar": ["b.root"]}', "names 2 samples, 'ttH', 'ttbar'; write a list for each"),
        ('{"version": "2"}', "'version' names no file"),
        ('{"a": ', "begins as JSON, and is none"),
        ("| SCOPE:NAME | GUID |\n| mc:a.root | 5 |\n", "let `rucio list-file-replicas` write it"),
    ],
)
def test_what_names_no_file_is_told(text, said):
    with pytest.raises(ListError, match=said):
        entries_of(text)


def test_a_list_is_known_by_its_name():
    assert all(map(is_list, ["a.txt", "b.list", "c.json", "https://host/d.txt?token=1"]))
    assert not any(map(is_list, ["a.root", "b.txt.root", "https://host/a.root?x=.txt"]))
