"""How much a reader must hold in mind: figures of the code, and their limits.

    python scripts/style_figures.py [--check] [PATH ...]

Counts the syntax nodes of every function body (docstring, signature and inner functions
apart), comprehensions and conditional expressions per 1000 lines of code, comments per
100, loose dictionaries per 1000, and lists the functions above the 90th percentile
allowed. PATH is a file or folder (default: src/cingulum). With --check, exits 1 when a
limit is passed.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import statistics
import sys
import tokenize
from dataclasses import dataclass, field
from pathlib import Path

# In httpx, skrub and diffrax medians are 17 to 20 and 90th percentiles 81 to 107; they
# have 6 to 13 comments in 100 lines. Numerical code may take a little more.
MEDIAN, PERCENTILE_90, LARGEST = 28, 115, 250
DENSE_PER_1000, LOOSE_PER_1000, COMMENTS_PER_100 = 35, 2, 4

EXCEPTIONS: dict[str, str] = {}
"""Functions that may exceed LARGEST, as `path::name`, with the reason."""

LOOSE = re.compile(r"\b[dD]ict\[str, (Any|object)\]|\bMapping\[str, (Any|object)\]")
UNFORMATTED = re.compile(r"\bfmt\s*:\s*(?:skip|off)\b")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
DENSE = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.IfExp)
# Every name carries one of these: counting them would count names twice.
SILENT = (ast.Load, ast.Store, ast.Del)
# Comments for tools, and the first line of a script.
MARKERS = ("type:", "noqa", "fmt:", "pragma", "!")


@dataclass
class Figures:
    """Counts over all files that were read."""

    sizes: dict[str, int] = field(default_factory=dict)
    dense: int = 0
    loose: int = 0
    comments: int = 0
    skips: int = 0
    widths: list[int] = field(default_factory=list)

    def percentile(self, share: float) -> int:
        ordered = sorted(self.sizes.values())
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    @property
    def median(self) -> float:
        return statistics.median(self.sizes.values())

    def per_1000(self, count: int) -> float:
        return 1000 * count / len(self.widths)


def body_size(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Syntax nodes of a function body."""
    stack: list[ast.AST] = [node for node in function.body if not is_text(node)]
    count = 0
    while stack:
        node = stack.pop()
        # An inner function is counted by itself.
        if isinstance(node, FUNCTIONS):
            continue
        count += not isinstance(node, SILENT)
        stack.extend(ast.iter_child_nodes(node))
    return count


def is_text(node: ast.AST) -> bool:
    """Whether a statement is a docstring."""
    if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Constant):
        return False
    return isinstance(node.value.value, str)


def add_file(figures: Figures, path: Path) -> None:
    """Count what is in a file."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    _add_functions(figures, path, tree)
    figures.dense += sum(isinstance(node, DENSE) for node in ast.walk(tree))
    figures.loose += len(LOOSE.findall(text))
    figures.skips += len(UNFORMATTED.findall(text))
    figures.comments += _comments(text)
    figures.widths += _code_widths(text, tree)


def _add_functions(figures: Figures, path: Path, tree: ast.Module) -> None:
    for node in ast.walk(tree):
        if isinstance(node, FUNCTIONS):
            figures.sizes[f"{path}:{node.lineno} {node.name}"] = body_size(node)


def _comments(text: str) -> int:
    """Comments for a reader; those for a tool do not count."""
    count = 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            count += not token.string.lstrip("# ").startswith(MARKERS)
    return count


def _code_widths(text: str, tree: ast.Module) -> list[int]:
    """Width of every line of code: no comment, docstring or empty line."""
    docstring_lines: set[int] = set()
    for node in ast.walk(tree):
        if is_text(node):
            docstring_lines |= set(range(node.lineno, node.end_lineno + 1))
    widths = []
    for number, line in enumerate(text.splitlines(), 1):
        is_code = line.strip() and not line.strip().startswith("#")
        if is_code and number not in docstring_lines:
            widths.append(len(line))
    return widths


def passed_limits(figures: Figures) -> list[str]:
    """Each limit that is passed, in words."""
    problems = _large_functions(figures)
    upper_limits = [
        ("median of function sizes", figures.median, MEDIAN),
        ("90th percentile of function sizes", figures.percentile(0.9), PERCENTILE_90),
        ("dense expressions per 1000", figures.per_1000(figures.dense), DENSE_PER_1000),
        (
            "loose dictionaries per 1000",
            figures.per_1000(figures.loose),
            LOOSE_PER_1000,
        ),
        ("lines that ruff may not format", figures.skips, 0),
    ]
    for name, value, limit in upper_limits:
        if value > limit:
            problems.append(f"{name}: {value:.1f}; at most {limit}")
    comments = figures.per_1000(figures.comments) / 10
    if comments < COMMENTS_PER_100:
        problems.append(
            f"comments per 100: {comments:.1f}; at least {COMMENTS_PER_100}"
        )
    return problems


def _large_functions(figures: Figures) -> list[str]:
    allowed = {name.replace("::", " ") for name in EXCEPTIONS}
    problems = []
    for name, size in figures.sizes.items():
        # Exceptions are named without a line, which changes with every edit above it.
        location = re.sub(r":\d+ ", " ", name)
        if size > LARGEST and location not in allowed:
            problems.append(f"{name}: {size} syntax nodes; at most {LARGEST}")
    return problems


def summary(figures: Figures) -> str:
    """All figures in one line."""
    dense = figures.per_1000(figures.dense)
    loose = figures.per_1000(figures.loose)
    comments = figures.per_1000(figures.comments) / 10
    return (
        f"{len(figures.sizes)} functions: nodes median {figures.median:.0f}, "
        f"90 % {figures.percentile(0.9)}; per 1000 lines: {dense:.0f} dense "
        f"expressions, {loose:.1f} loose dictionaries; {comments:.1f} comments per "
        f"100; {figures.skips} left unformatted; widest line {max(figures.widths)}"
    )


def python_files(paths: list[Path]) -> list[Path]:
    """Files as they are, and every Python file below a folder."""
    files: list[Path] = []
    for path in paths:
        if path.is_file():
            files.append(path)
        else:
            files += sorted(path.rglob("*.py"))
    return files


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("paths", nargs="*", type=Path, default=[Path("src/cingulum")])
    parser.add_argument("--check", action="store_true", help="exit 1 past a limit")
    arguments = parser.parse_args()
    figures = Figures()
    for path in python_files(arguments.paths):
        add_file(figures, path)
    print(summary(figures))
    if arguments.check:
        problems = passed_limits(figures)
        print(*problems, sep="\n")
        return 1 if problems else 0
    for name, size in sorted(figures.sizes.items(), key=lambda item: -item[1]):
        if size > PERCENTILE_90:
            print(f"{size:5} {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
