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

LINK = re.compile(r"\[([^\]]+)\]\(([^)\s#]+)(#[^)\s]*)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Decisions are found, not listed: one more is one more file."""
    decisions = [
        "decisions/index.md",
        *(
            f"decisions/{path.name}"
            for path in sorted(ROOT.glob("docs/decisions/0*.md"))
        ),
    ]
    for part in config.nav or []:
        for entry in next(iter(part.values())):
            if "Decisions" in entry:
                entry["Decisions"] = decisions
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for page, source in PAGES.items():
        files.append(
            File.generated(
                config, page, content=(ROOT / source).read_text(encoding="utf-8")
            )
        )
    files.append(File.generated(config, "decisions/index.md", content=_decisions()))
    return files


def on_page_markdown(
    markdown: str, page: Page, config: MkDocsConfig, files: Files
) -> str:
    here = page.file.src_uri
    source = PAGES.get(here, f"docs/{here}")
    return LINK.sub(lambda found: _link(found, here, source), markdown)


def _link(found: re.Match[str], here: str, source: str) -> str:
    """The link, to a page of the site; the words alone where a file of the repository
    has no page."""
    words, target, part = found.groups()
    place = os.path.normpath(os.path.join(os.path.dirname(source), target))
    if "://" in target or target.startswith("mailto:") or not (ROOT / place).exists():
        return found.group()
    page = page_of(place)
    return (
        f"[{words}]({os.path.relpath(page, os.path.dirname(here) or '.')}{part or ''})"
        if page
        else words
    )


def page_of(place: str) -> str | None:
    """The page of a file or folder of the repository."""
    outside = {source: page for page, source in PAGES.items()}
    if place in outside:
        return outside[place]
    if place == "docs/decisions":
        return "decisions/index.md"
    if re.fullmatch(r"examples/\w+\.py", place):
        return f"tutorials/{Path(place).stem}.md"
    return (
        place.removeprefix("docs/")
        if place.startswith("docs/") and (ROOT / place).is_file()
        else None
    )


def _pages_of_decisions() -> list[Path]:
    return sorted(ROOT.glob("docs/decisions/0*.md"))


def _decisions() -> str:
    lines = [
        "# Decisions",
        "",
        "Why the package is as it is, half a page each. None is rewritten: a later one "
        "says so.",
        "",
    ]
    for path in sorted(ROOT.glob("docs/decisions/0*.md")):
        title = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        number, _, words = title.partition(". ")
        lines.append(f"- {number}. [{words or title}]({path.name})")
    return "\n".join(lines) + "\n"
