"""The documentation as a site: it builds strictly, has the whole public face, and loads nothing from elsewhere."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import rootdata

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("mkdocs", "material", "mkdocstrings", "griffe")),
    reason="NO DOCUMENTATION: nothing of the site was tested; pip install 'rootdata[docs]'",
)


def build(repository: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """What a site is made of, to be changed."""
    for name in (".ci", "docs", "src", "examples"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (ROOT / "mkdocs.yml", *ROOT.glob("*.md")):
        shutil.copy(path, tmp_path)
    return tmp_path


@pytest.mark.long
def test_every_page_and_the_public_face_are_there(site: Path) -> None:
    pages = {str(p.relative_to(ROOT / "docs").with_suffix(".html")) for p in (ROOT / "docs").rglob("*.md")}
    assert pages <= {str(p.relative_to(site)) for p in site.rglob("*.html")}
    reference = (site / "reference.html").read_text()
    headings = set(re.findall(r'id="?rootdata\.([^"\s>.]+)["\s>]', reference))
    assert set(rootdata.__all__) <= headings
    assert "page-locked batches" in reference  # a parameter's slot
    assert ":class:`" not in reference


@pytest.mark.long
def test_links_between_pages_and_to_files_outside_lead_somewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        for link in re.findall(r'href="([^"#:?]+)[#"]', page.read_text()):
            if page.name != "404.html":  # whose links are those of the root
                assert (page.parent / link).exists(), f"{page.name}: {link}"


@pytest.mark.long
def test_the_search_knows_the_options(site: Path) -> None:
    assert "chunk_size" in (site / "search" / "search_index.json").read_text()


WRONG = {
    "[gone](gone.md)": "gone.md",
    "[gone](../src/rootdata/gone.py)": "gone.py",
    "[gone](words.md#gone)": "#gone",
    '<script src="https://elsewhere.example.org/x.js"></script>': "elsewhere.example.org/x.js",
    "![picture](https://elsewhere.example.org/x.png)": "elsewhere.example.org/x.png",
}


@pytest.mark.long
def test_a_link_that_leads_nowhere_and_what_comes_from_elsewhere_are_refused(copy: Path) -> None:
    with (copy / "docs" / "tth.md").open("a") as page:
        page.write("\n" + "\n\n".join(WRONG) + "\n")
    done = build(copy, copy / "site")
    assert done.returncode != 0
    assert [message for message in WRONG.values() if message not in done.stdout + done.stderr] == []
