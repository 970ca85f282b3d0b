"""Every example as a page: its code, what it printed and what it drew. Examples are run
once, and their output is cached.

The cache key is a hash of the example, of the package's source and of torch's version,
so that an output is never older than the code above it. CINGULUM_DOCS_RUN=no builds
pages without running anything, and they say so.
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
CACHE = ROOT / ".tutorials"
TIME_LIMIT = 600
"""Seconds after which an example is ended and the build fails."""

ERROR_CHARACTERS = 3000
"""Of what a failed example printed: its end, where the error is."""

RUNNER = """
import runpy, sys
runpy.run_path(sys.argv[1], run_name="__main__")
if "matplotlib.pyplot" in sys.modules:
    plt = sys.modules["matplotlib.pyplot"]
    for number in plt.get_fignums():
        plt.figure(number).savefig(f"figure-{number}.png", dpi=120)
"""
"""Runs an example and saves the figures that it left open."""

# No window opens, lines break at the same width everywhere, and seconds do not depend
# on the number of cores.
ENVIRONMENT = {
    "MPLBACKEND": "Agg",
    "OMP_NUM_THREADS": "1",
    "COLUMNS": "110",
    "PYTHONWARNINGS": "ignore",
}


@dataclass(frozen=True)
class ExampleRun:
    """What an example printed and drew, and the seconds it took; or why it was not
    run."""

    output: str = ""
    figures: tuple[Path, ...] = ()
    seconds: float = 0.0
    why_not: str = ""


def examples() -> list[Path]:
    """The examples, the first steps first."""
    paths = (ROOT / "examples").glob("*.py")
    return sorted(paths, key=lambda path: (path.stem != "first_steps", path.stem))


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    pages: list[dict[str, str]] = [{"All": "tutorials/index.md"}]
    for path in examples():
        title = path.stem.replace("_", " ").capitalize()
        pages.append({title: f"tutorials/{path.stem}.md"})
    for entry in config.nav or []:
        if "Tutorials" in entry:
            entry["Tutorials"] = pages
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for path in examples():
        example_run = cached_run(path)
        for figure in example_run.figures:
            uri = f"tutorials/{path.stem}-{figure.name}"
            files.append(File.generated(config, uri, abs_src_path=str(figure)))
        uri = f"tutorials/{path.stem}.md"
        files.append(File.generated(config, uri, content=page(path, example_run)))
    files.append(File.generated(config, "tutorials/index.md", content=overview()))
    return files


def title_and_text(path: Path) -> tuple[str, str, str]:
    """First line of the docstring, the lines below it, and the code."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    title, _, words = (ast.get_docstring(tree) or path.stem).partition("\n")
    # The docstring is the first statement; the code begins below it.
    code = text.splitlines()[tree.body[0].end_lineno or 0 :]
    return title.rstrip("."), words.strip(), "\n".join(code).strip()


def overview() -> str:
    lines = [
        "# Tutorials",
        "",
        "Each is a program in `examples/` that runs as it stands; below its code "
        "stands what it printed.",
        "",
    ]
    for path in examples():
        lines.append(f"- [{title_and_text(path)[0]}]({path.stem}.md)")
    return "\n".join(lines) + "\n"


def page(path: Path, example_run: ExampleRun) -> str:
    """The page of an example as Markdown."""
    title, text, code = title_and_text(path)
    parts = [
        f"# {title}",
        text,
        f"`python examples/{path.name}`",
        f"```python\n{code}\n```",
        "## Output",
        *_output_parts(example_run),
    ]
    for figure in example_run.figures:
        parts.append(f"![drawn by {path.name}]({path.stem}-{figure.name})")
    return "\n\n".join(part for part in parts if part) + "\n"


def _output_parts(example_run: ExampleRun) -> list[str]:
    if example_run.why_not:
        return [f"*Not run when this site was built: {example_run.why_not}*"]
    computer = (
        f"Python {platform.python_version()}, torch {version('torch')}, "
        f"{platform.machine()}, one thread"
    )
    return [
        f"*{example_run.seconds:.0f} s; {computer}.*",
        f"```text\n{example_run.output.rstrip()}\n```",
    ]


def key(path: Path) -> str:
    """Changes with everything that may change the output of an example."""
    content = hashlib.sha256(f"{RUNNER}{version('torch')}{path.name}".encode())
    # The whole package: which of its modules an example uses is not known.
    for source in (path, *sorted((ROOT / "src").rglob("*.py"))):
        content.update(source.read_bytes())
    return content.hexdigest()[:16]


def cached_run(path: Path) -> ExampleRun:
    """The cached run of an example, or a new one. Raises PluginError where the example
    fails."""
    folder = CACHE / f"{path.stem}-{key(path)}"
    if not (folder / "run.json").is_file():
        why_not = _why_not(path)
        if why_not:
            return ExampleRun(why_not=why_not)
        for outdated in CACHE.glob(f"{path.stem}-*"):
            shutil.rmtree(outdated)
        _run_into(folder, path)
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    figures = tuple(sorted(folder.glob("*.png")))
    return ExampleRun(record["output"], figures, record["seconds"])


def _why_not(path: Path) -> str:
    """Why an example cannot be run here; empty where it can."""
    if os.environ.get("CINGULUM_DOCS_RUN") == "no":
        return "CINGULUM_DOCS_RUN=no was set."
    if "datasets import hcp" not in path.read_text(encoding="utf-8"):
        return ""
    from cingulum.datasets import hcp
    from cingulum.errors import InputError

    # Building the site must not need the network.
    try:
        hcp.fetch(offline=True)
    except InputError:
        return (
            "it needs Human Connectome data, which this machine does not have "
            "(`cingulum fetch hcp`)."
        )
    return ""


def _run_into(folder: Path, path: Path) -> None:
    """Run an example and write what it printed and drew into a folder."""
    print(f"running examples/{path.name} …", file=sys.stderr, flush=True)
    # Examples write files; none of them belongs into the repository.
    with tempfile.TemporaryDirectory() as work:
        start = time.monotonic()
        output = _output(path, work)
        seconds = time.monotonic() - start
        folder.mkdir(parents=True)
        for figure in sorted(Path(work).glob("*.png")):
            shutil.copy(figure, folder)
    # Written last: a folder without it is not a finished run.
    record = json.dumps({"output": output, "seconds": seconds})
    (folder / "run.json").write_text(record, encoding="utf-8")


def _output(path: Path, work: str) -> str:
    """What an example prints. Raises PluginError where it fails or prints nothing."""
    # The package of this clone, also where another one is installed.
    search_path = str(ROOT / "src")
    if os.environ.get("PYTHONPATH"):
        search_path += os.pathsep + os.environ["PYTHONPATH"]
    try:
        process = subprocess.run(
            [sys.executable, "-c", RUNNER, str(path)],
            cwd=work,
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT,
            env={**os.environ, **ENVIRONMENT, "PYTHONPATH": search_path},
        )
    except subprocess.TimeoutExpired:
        raise PluginError(
            f"examples/{path.name} did not end within {TIME_LIMIT} s."
        ) from None
    if process.returncode or not process.stdout.strip():
        raise PluginError(
            f"examples/{path.name} failed or printed nothing:\n"
            f"{process.stderr[-ERROR_CHARACTERS:]}"
        )
    return process.stdout
