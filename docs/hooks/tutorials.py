"""Every example as a page: its code, what it printed and what it drew, run once and
kept by content.

The key of a kept run is a hash of the example, of the package's source and of torch's
version, so that an output is never older than the code above it. CINGULUM_DOCS_RUN=no
builds pages without running anything, and they say so.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
KEPT = ROOT / ".tutorials"
LIMIT = 600
"""Seconds after which an example is ended and the build fails."""

RUN = """
import runpy, sys
runpy.run_path(sys.argv[1], run_name="__main__")
if "matplotlib.pyplot" in sys.modules:
    plt = sys.modules["matplotlib.pyplot"]
    for number in plt.get_fignums():
        plt.figure(number).savefig(f"figure-{number}.png", dpi=120)
"""


@dataclass(frozen=True)
class Ran:
    """What a run left: text, pictures and seconds; or why there was none."""

    output: str = ""
    figures: tuple[Path, ...] = ()
    seconds: float = 0.0
    why_not: str = ""


def examples() -> list[Path]:
    return sorted(
        (ROOT / "examples").glob("*.py"),
        key=lambda path: (path.stem != "first_steps", path.stem),
    )


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    for entry in config.nav or []:
        if "Tutorials" in entry:
            pages = [
                {path.stem.replace("_", " ").capitalize(): f"tutorials/{path.stem}.md"}
                for path in examples()
            ]
            entry["Tutorials"] = [{"All": "tutorials/index.md"}, *pages]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for path in examples():
        ran = run(path)
        for figure in ran.figures:
            place = f"tutorials/{path.stem}-{figure.name}"
            files.append(File.generated(config, place, abs_src_path=str(figure)))
        files.append(
            File.generated(config, f"tutorials/{path.stem}.md", content=page(path, ran))
        )
    files.append(File.generated(config, "tutorials/index.md", content=overview()))
    return files


def title_and_text(path: Path) -> tuple[str, str, str]:
    """First line of the docstring, the rest of it, and the code below it."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    first, _, rest = (ast.get_docstring(tree) or path.stem).partition("\n")
    code = "\n".join(text.splitlines()[tree.body[0].end_lineno or 0 :]).strip()
    return first.rstrip("."), rest.strip(), code


def overview() -> str:
    told = (
        "Each is a program in `examples/` that runs as it stands; below its code "
        "stands what it printed."
    )
    lines = ["# Tutorials", "", told, ""]
    for path in examples():
        lines.append(f"- [{title_and_text(path)[0]}]({path.stem}.md)")
    return "\n".join(lines) + "\n"


def page(path: Path, ran: Ran) -> str:
    title, text, code = title_and_text(path)
    parts = [
        f"# {title}",
        text,
        f"`python examples/{path.name}`",
        f"```python\n{code}\n```",
    ]
    if ran.why_not:
        parts += ["## Output", f"*Not run when this site was built: {ran.why_not}*"]
    else:
        machine = (
            f"Python {platform.python_version()}, torch {version('torch')}, "
            f"{platform.machine()}, one thread"
        )
        parts += [
            "## Output",
            f"*{ran.seconds:.0f} s; {machine}.*",
            f"```text\n{ran.output.rstrip()}\n```",
        ]
    parts += [
        f"![drawn by {path.name}]({path.stem}-{figure.name})" for figure in ran.figures
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def key(path: Path) -> str:
    found = hashlib.sha256(f"{RUN}{version('torch')}{path.name}".encode())
    for source in (path, *sorted((ROOT / "src").rglob("*.py"))):
        found.update(source.read_bytes())
    return found.hexdigest()[:16]


def run(path: Path) -> Ran:
    """The kept run of an example, else a new one. Raises PluginError where the example
    fails."""
    folder = KEPT / f"{path.stem}-{key(path)}"
    if not (folder / "run.json").is_file():
        if why_not := _unfit(path):
            return Ran(why_not=why_not)
        for old in KEPT.glob(f"{path.stem}-*"):
            shutil.rmtree(old)
        _run(path, folder)
    told = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return Ran(told["output"], tuple(sorted(folder.glob("*.png"))), told["seconds"])


def _unfit(path: Path) -> str:
    if os.environ.get("CINGULUM_DOCS_RUN") == "no":
        return "CINGULUM_DOCS_RUN=no was set."
    if "datasets import hcp" in path.read_text(encoding="utf-8"):
        from cingulum.datasets import hcp
        from cingulum.errors import InputError

        try:
            hcp.fetch(offline=True)
        except InputError:
            return (
                "it needs Human Connectome data, which this machine does not have "
                "(`cingulum fetch hcp`)."
            )
    return ""


def _run(path: Path, folder: Path) -> None:
    print(f"running examples/{path.name} …", file=sys.stderr, flush=True)
    settings = {
        "MPLBACKEND": "Agg",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "110",
        "PYTHONWARNINGS": "ignore",
    }
    paths = os.pathsep.join(
        filter(None, (str(ROOT / "src"), os.environ.get("PYTHONPATH")))
    )
    with tempfile.TemporaryDirectory() as work:
        start = time.monotonic()
        try:
            done = subprocess.run(
                [sys.executable, "-c", RUN, str(path)],
                cwd=work,
                capture_output=True,
                text=True,
                timeout=LIMIT,
                env={**os.environ, **settings, "PYTHONPATH": paths},
            )
        except subprocess.TimeoutExpired:
            raise PluginError(
                f"examples/{path.name} did not end within {LIMIT} s."
            ) from None
        if done.returncode or not done.stdout.strip():
            raise PluginError(
                f"examples/{path.name} failed or printed "
                f"nothing:\n{done.stderr[-3000:]}"
            )
        folder.mkdir(parents=True)
        for figure in sorted(Path(work).glob("*.png")):
            shutil.copy(figure, folder)
        told = {"output": done.stdout, "seconds": time.monotonic() - start}
        (folder / "run.json").write_text(json.dumps(told), encoding="utf-8")
