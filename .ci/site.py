"""What mkdocs is told beyond ``mkdocs.yml``.

The pages are read in two places: in the repository, where a link leads to any file, and on the site, which has those
below ``docs``. Here the files outside that pages link to become part of the site, under their own paths, and links are
turned to where things lie there. The README is the site's first page.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
START = ROOT / "README.md"
BESIDE = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")  # pages that the table of contents names
LINK = re.compile(r"(\]\()([^)\s:#]+)((?:#[^)\s]*)?\))")
# What a browser fetches by itself; a link that is to be clicked may lead anywhere.
LOADS = re.compile(
    r"<(?:script|img|iframe|source|video|audio|embed|link)\b[^>]*?(?:src|href)=[\"']?((?:https?:)?//[^\"'\s>]+)"
)
STYLES = re.compile(r"(?:url\(|@import)\s*[\"']?((?:https?:)?//[^\"')\s]+)")
EXTENDED = (
    "rootdata.layouts.layout.LayoutKind",
    "rootdata.scaling.kinds.ScalingKind",
    "rootdata.scaling.curves.Curve",
)


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add what lies outside ``docs``."""
    files.append(File.generated(config, "index.md", content=START.read_text()))
    files.append(File.generated(config, "reference.md", content=reference()))
    left = [START, *(ROOT / name for name in BESIDE), *sorted(DOCS.glob("**/*.md"))]
    seen: set[Path] = set()
    while left:
        path = left.pop()
        if path in seen or not path.is_file():
            continue  # where it is absent, the link to it is a warning
        seen.add(path)
        if path != START and not path.is_relative_to(DOCS):
            files.append(File.generated(config, place_of(path), abs_src_path=str(path)))
        if path.suffix == ".md":
            left += [target_of(path, link) for _, link, _ in LINK.findall(path.read_text())]
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - their names
    """Turn links to where things lie on the site."""
    here = page.file.src_uri
    path = source_of(here)

    def turned(found: re.Match[str]) -> str:
        before, link, after = found.groups()
        place = place_of(target_of(path, link))
        return before + os.path.relpath(place, Path(here).parent) + after

    return LINK.sub(turned, markdown)


def on_post_build(*, config: MkDocsConfig) -> None:
    """Refuse a site that loads something from another host."""
    found = {
        f"{path.relative_to(config.site_dir)}: {url}"
        for path in sorted(Path(config.site_dir).rglob("*"))
        for url in loaded_by(path)
    }
    if found:
        raise PluginError("the site loads from other hosts: " + "; ".join(sorted(found)))


def loaded_by(path: Path) -> list[str]:
    """List the addresses on other hosts that a page or a style fetches."""
    pattern = {".html": LOADS, ".css": STYLES}.get(path.suffix)
    return pattern.findall(path.read_text()) if pattern else []


def source_of(place: str) -> Path:
    """Return the file of a page."""
    if place == "index.md":
        return START
    return DOCS / place if (DOCS / place).exists() else ROOT / place


def target_of(path: Path, link: str) -> Path:
    """Return the file that a link in another one leads to."""
    return Path(os.path.normpath(path.parent / link))


def place_of(path: Path) -> str:
    """Return where a file of the repository lies on the site."""
    if path == START:
        return "index.md"
    return path.relative_to(DOCS if path.is_relative_to(DOCS) else ROOT).as_posix()


def reference() -> str:
    """Write the page of the public face."""
    lines = ["# Python", "", "Everything else is private by its place.", ""]
    for title, package in (("Library", "rootdata"), ("Client of the server", "serve.client")):
        loaded: Any = griffe.load(package, search_paths=[ROOT / "src"])
        lines += [f"## {title}", "", f"`import {package}`", ""]
        lines += [line for name in loaded.exports for line in (f"::: {package}.{name}", "")]
    lines += [
        "## What you extend",
        "",
        "A class of your own with these members: [how](CONTRIBUTING.md#add-a-layout).",
        "",
    ]
    return "\n".join(lines + [line for name in EXTENDED for line in (f"::: {name}", "")])
