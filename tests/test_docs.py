"""The site's sources are consistent: pages, commands, settings and public names, each
held against the code."""

import html
import importlib.util
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import cingulum
from cingulum.cli import parser
from cingulum.pipeline.config import SECTIONS, StudyConfig, options

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
WRITTEN = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
GENERATED = {"index.md", "changelog.md", "contributing.md"}
"""Pages that a hook makes of files outside docs/."""


def hook(name):
    found = importlib.util.spec_from_file_location(
        f"docs_{name}", DOCS / "hooks" / f"{name}.py"
    )
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module
    found.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def nav():
    """Pages named in mkdocs.yml."""
    yaml = pytest.importorskip("yaml")
    told = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]

    def pages(part):
        for entry in part:
            inner = next(iter(entry.values())) if isinstance(entry, dict) else entry
            yield from pages(inner) if isinstance(inner, list) else [inner]

    return list(pages(told))


def test_every_page_of_the_nav_exists_and_every_page_is_in_it(nav):
    assert len(set(nav)) == len(nav)
    for page in set(nav) - GENERATED:
        assert (DOCS / page).is_file(), page
    mine = {
        path.relative_to(DOCS).as_posix()
        for path in DOCS.rglob("*.md")
        if "decisions" not in path.parts
    }
    assert mine == set(nav) - GENERATED


@pytest.fixture(scope="module")
def commands():
    """Every command and verb with its options."""
    found = dict(hook("reference").every_command(parser()))
    return {
        name: {option for action in one._actions for option in action.option_strings}
        for name, one in found.items()
    }


def test_every_command_is_documented(commands):
    assert "<!-- commands -->" in (DOCS / "commands.md").read_text()
    page = hook("reference").commands()
    for name, flags in commands.items():
        assert f"## {name}\n" in page
        assert all(flag in page for flag in flags)


@pytest.mark.parametrize(
    "path", WRITTEN, ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_commands_and_options_that_pages_show_exist(commands, path):
    """`cingulum run … --option`: the command is there and has the option."""
    for line in path.read_text().splitlines():
        for name, rest in re.findall(
            r"(?<![\w./-])cingulum (?!import)([a-z]+)([^`#|]*)", line
        ):
            longest = next(
                (
                    n
                    for n in (
                        f"cingulum {name} {(rest.split() or [''])[0]}",
                        f"cingulum {name}",
                    )
                    if n in commands
                ),
                "",
            )
            if not longest and not re.search(r"[`$]|^cingulum", line):
                continue  # a sentence, not a command
            assert longest, f"no such command: {line}"
            known = commands[longest] | {"--version"}
            assert set(re.findall(r"(?<!\w)--[a-z][\w-]*", rest)) <= known, line


def test_every_setting_is_documented():
    page = (DOCS / "study.md").read_text()
    assert "<!-- settings -->" in page and "<!-- studies -->" in page
    made = html.unescape(hook("reference").settings())
    for name, kind in {"": StudyConfig, **SECTIONS}.items():
        part = made.split(f"## [{name}]" if name else "## Above the tables")[1].split(
            "\n## "
        )[0]
        for one in options(kind):
            assert f"| `{one.name}` |" in part and one.meaning in part


def test_the_study_that_the_page_shows_is_one(tmp_path):
    from cingulum.pipeline.config import read_study

    shown = re.search(r"```toml\n(.*?)```", (DOCS / "study.md").read_text(), re.S)
    (tmp_path / "study.toml").write_text(shown[1])
    assert read_study(tmp_path / "study.toml").prediction.fusion == "log_odds"


def test_every_public_name_has_a_page():
    modules = {
        m
        for page in DOCS.glob("api/*.md")
        for m in re.findall(r"^::: (\S+)", page.read_text(), re.M)
    }
    for module in modules:
        assert importlib.util.find_spec(module), module
    for name, layer in cingulum._WHERE.items():
        place = getattr(import_module(layer), name).__module__
        assert place in modules or place.rpartition(".")[0] in modules, (
            f"{name} of {place}"
        )


def test_files_that_pages_include_exist():
    for path in WRITTEN:
        for name in re.findall(r'--8<-- "([^"]+)"', path.read_text()):
            assert (ROOT / name).is_file(), f"{path}: {name}"


def test_pages_name_programs_that_exist():
    for path in WRITTEN:
        for name in re.findall(
            r"\b((?:benchmarks|examples|scripts)/[\w/]+(?:\.\w+)?)", path.read_text()
        ):
            if "decisions" not in path.parts:
                assert (ROOT / name).exists(), f"{path}: {name}"


def test_docstrings_become_lists():
    pytest.importorskip("griffe")
    listed = hook("docstrings").listed
    text = (
        "What it gives.\n\na, b: two\n    more of it\nnote: no argument\nRaises "
        "InputError for a."
    )
    made = (
        "What it gives.\n\n\n- `a`, `b`: two\n  more of it\n\nnote: no "
        "argument\n\nRaises InputError for a."
    )
    assert listed(text, {"a", "b"}) == made


def test_no_output_is_made_up(tmp_path, monkeypatch):
    """Examples whose run is not kept say so; a failing one stops the build."""
    pytest.importorskip("mkdocs")
    from mkdocs.exceptions import PluginError

    tutorials = hook("tutorials")
    monkeypatch.setattr(tutorials, "CACHE", tmp_path / "kept")
    example = tmp_path / "example.py"
    example.write_text('"""Adds."""\n\nprint(40 + 2)\n')
    monkeypatch.setenv("CINGULUM_DOCS_RUN", "no")
    assert "Not run when this site was built" in tutorials.page(
        example, tutorials.cached_run(example)
    )
    monkeypatch.delenv("CINGULUM_DOCS_RUN")
    ran = tutorials.cached_run(example)
    assert ran.output == "42\n" and "```text\n42\n```" in tutorials.page(example, ran)
    monkeypatch.setattr(tutorials, "_run_into", lambda *given: pytest.fail("was kept"))
    assert tutorials.cached_run(example) == ran
    monkeypatch.undo()
    monkeypatch.setattr(tutorials, "CACHE", tmp_path / "kept")
    example.write_text('"""Fails."""\n\nprint(1)\nraise SystemExit(3)\n')
    with pytest.raises(PluginError, match="failed"):
        tutorials.cached_run(example)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            "participants.sh",
            "run BIDS OUT participant --participant-label sub-02 --n-jobs 1 --study "
            "s.toml",
        ),
        ("group.sh", "run BIDS OUT group --n-jobs 8 --study s.toml"),
    ],
)
def test_slurm_scripts_call_the_command(tmp_path, script, said):
    dataset = tmp_path / "BIDS"
    dataset.mkdir()
    (dataset / "participants.tsv").write_text(
        "participant_id\tage\nsub-01\t30\nsub-02\t40\n"
    )
    program = tmp_path / "cingulum"
    program.write_text('#!/bin/sh\necho "$@"\n')
    program.chmod(0o755)
    told = {
        "SLURM_ARRAY_TASK_ID": "2",
        "SLURM_CPUS_PER_TASK": "8",
        "BIDS": "BIDS",
        "OUT": "OUT",
    }
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", ROOT / "examples" / "slurm" / script, "--study", "s.toml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **told, "PATH": path},
    )
    assert done.stdout.strip() == said


def test_the_queue_file_makes_a_job():
    """One process a job, with the memory and time of the file."""
    yaml = pytest.importorskip("yaml")
    dask, jobqueue = (
        pytest.importorskip("dask"),
        pytest.importorskip("dask_jobqueue.slurm"),
    )
    told = yaml.safe_load((ROOT / "examples/slurm/jobqueue.yaml").read_text())[
        "jobqueue"
    ]["slurm"]
    with dask.config.set(
        {f"jobqueue.slurm.{key}": value for key, value in told.items()}
    ):
        job = jobqueue.SLURMJob(
            "tcp://127.0.0.1:1",
            name="w",
            job_script_prologue=["export OMP_NUM_THREADS=1"],
        )
        script = job.job_script()
    for line in (
        "#SBATCH -J cingulum",
        "#SBATCH -p normal",
        "#SBATCH --mem=8G",
        "#SBATCH -t 08:00:00",
    ):
        assert line in script
    assert sys.executable in script, "workers are started by the command's own Python"
    assert "--nthreads 1" in script and "--nworkers" not in script


@pytest.mark.slow
def test_the_site_is_built_strictly_and_loads_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("material")
    pytest.importorskip("mkdocstrings")
    settings = {**os.environ, "CINGULUM_DOCS_RUN": "no", "NO_MKDOCS_2_WARNING": "1"}
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--quiet",
        "--site-dir",
        tmp_path / "site",
    ]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=settings
    )
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 40
    loads = re.compile(
        r'<(?:script|img|iframe|source|link(?![^>]*rel="?canonical))[^>]*(?:src|href)="?(?:https?:)?//[^>]*>'
    )
    for page in pages:
        assert not loads.findall(page.read_text()), page
    for sheet in (tmp_path / "site").rglob("*.css"):
        assert not re.search(
            r"(?:@import|url\()\s*[\"']?(?:https?:)?//", sheet.read_text()
        ), sheet
    assert not any('class="mermaid"' in page.read_text() for page in pages), (
        "Material would fetch mermaid"
    )
