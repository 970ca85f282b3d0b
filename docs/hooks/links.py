"""Files of the repository as pages of the site: README, changelog and contributing
guide; links to what has a page."""

from __future__ import annotations

import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PAGES = {
    "index.md": "README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
}
"""Pages that are files of the repository outside docs/."""

SOURCES = {source: page for page, source in PAGES.items()}

LINK = re.compile(r"\[([^\]]+)\]\(([^)\s#]+)(#[^)\s]*)?\)")
"""A link to a file: words, target, and the heading in it."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Decisions are listed in the navigation by their files, so that a new one needs no
    entry in mkdocs.yml."""
    pages = ["decisions/index.md"]
    pages += [f"decisions/{path.name}" for path in _decision_files()]
    for part in config.nav or []:
        # A part of the navigation is a dictionary of one: its title and its entries.
        for entry in next(iter(part.values())):
            if "Decisions" in entry:
                entry["Decisions"] = pages
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for page, source in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))
    files.append(File.generated(config, "decisions/index.md", content=_decisions()))
    return files


def on_page_markdown(
    markdown: str, page: Page, config: MkDocsConfig, files: Files
) -> str:
    uri = page.file.src_uri
    # Links are relative to the file that they were written in.
    source = PAGES.get(uri, f"docs/{uri}")
    return LINK.sub(lambda link: _site_link(link, uri, source), markdown)


def _site_link(link: re.Match[str], uri: str, source: str) -> str:
    """The link, to a page of the site; the words alone where a file of the repository
    has no page."""
    words, target, heading = link.groups()
    # `../README.md` in a page of docs/ is README.md of the repository.
    path = os.path.normpath(os.path.join(os.path.dirname(source), target))
    is_outside = "://" in target or target.startswith("mailto:")
    if is_outside or not (ROOT / path).exists():
        return link.group()
    # A link to a source file would lead nowhere on the site.
    page = page_of(path)
    if page is None:
        return words
    relative = os.path.relpath(page, os.path.dirname(uri) or ".")
    return f"[{words}]({relative}{heading or ''})"


def page_of(path: str) -> str | None:
    """The page of a file or folder of the repository."""
    if path in SOURCES:
        return SOURCES[path]
    if path == "docs/decisions":
        return "decisions/index.md"
    if re.fullmatch(r"examples/\w+\.py", path):
        return f"tutorials/{Path(path).stem}.md"
    if path.startswith("docs/") and (ROOT / path).is_file():
        return path.removeprefix("docs/")
    return None


def _decision_files() -> list[Path]:
    return sorted(ROOT.glob("docs/decisions/0*.md"))


def _decisions() -> str:
    """The list of decisions as a page."""
    lines = [
        "# Decisions",
        "",
        "Why the package is as it is, half a page each. None is rewritten: a later one "
        "says so.",
        "",
    ]
    for path in _decision_files():
        heading = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        number, _, title = heading.partition(". ")
        lines.append(f"- {number}. [{title or heading}]({path.name})")
    return "\n".join(lines) + "\n"
