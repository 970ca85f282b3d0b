"""Recipes of containers: their syntax, and that everything they name is there. No
engine builds them here."""

import json
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PLACE = "/opt/cingulum"


@pytest.fixture(scope="module")
def docker():
    """Instructions of the Dockerfile, in their order."""
    parsing = pytest.importorskip("dockerfile_parse")
    told = parsing.DockerfileParser(path=str(ROOT / "Dockerfile")).structure
    return [
        (one["instruction"], one["value"])
        for one in told
        if one["instruction"] != "COMMENT"
    ]


@pytest.fixture(scope="module")
def apptainer():
    parsers = pytest.importorskip("spython.main.parse.parsers")
    made = parsers.get_parser("singularity")(str(ROOT / "apptainer.def"))
    (recipe,) = made.recipe.values()
    return recipe


def of(instructions, name):
    return [value for instruction, value in instructions if instruction == name]


def copied(instructions):
    """Files of the repository that the Dockerfile copies."""
    return [
        source for value in of(instructions, "COPY") for source in value.split()[:-1]
    ]


def test_only_known_instructions(docker):
    known = {
        "FROM",
        "LABEL",
        "ENV",
        "WORKDIR",
        "COPY",
        "RUN",
        "USER",
        "ENTRYPOINT",
        "CMD",
    }
    assert {instruction for instruction, _ in docker} <= known and docker[0][
        0
    ] == "FROM"


def test_both_begin_with_a_python_that_the_package_takes(docker, apptainer):
    assert of(docker, "FROM") == [apptainer.fromHeader]
    version = re.fullmatch(r"python:3\.(\d+)-slim", apptainer.fromHeader)
    least = re.fullmatch(r">=3\.(\d+)", PROJECT["requires-python"])
    assert version and least and int(version[1]) >= int(least[1])


def test_every_copied_path_exists_and_is_sent_to_the_engine(docker, apptainer):
    sent = [
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line[:1] == "!"
    ]
    taken = [pair.split() for pair in apptainer.files]
    assert (
        sorted(copied(docker)) == sorted(sent) == sorted(source for source, _ in taken)
    )
    for source in sent:
        assert (ROOT / source).exists(), source
    assert all(target == f"{PLACE}/{source}" for source, target in taken)


def test_what_the_build_of_the_package_reads_is_copied(docker):
    needed = {"pyproject.toml", PROJECT["readme"], *PROJECT["license-files"], "src"}
    assert needed <= set(copied(docker))


def test_pins_are_used_and_nothing_is_kept(docker, apptainer):
    settings = dict(
        pair.split("=", 1) for value in of(docker, "ENV") for pair in value.split()
    )
    workdir = of(docker, "WORKDIR")[0]
    assert (
        settings["PIP_CONSTRAINT"]
        == f"{workdir}/constraints.txt"
        == f"{PLACE}/constraints.txt"
    )
    assert settings["PIP_NO_CACHE_DIR"] == "1"
    build = "\n".join(apptainer.install)
    assert (
        f"PIP_CONSTRAINT={PLACE}/constraints.txt" in build and "--no-cache-dir" in build
    )
    order = [instruction for instruction, _ in docker]
    assert order.index("ENV") < order.index("COPY") < order.index("RUN"), (
        "pins stand before pip runs"
    )


def test_extras_exist(docker, apptainer):
    asked = re.findall(
        r"\[(\w+)\]\"", "\n".join([*of(docker, "RUN"), *apptainer.install])
    )
    assert asked and set(asked) <= set(PROJECT["optional-dependencies"])


def test_the_entry_point_is_an_installed_program(docker, apptainer):
    (program,) = json.loads(of(docker, "ENTRYPOINT")[0])
    assert program in PROJECT["scripts"]
    assert apptainer.cmd == f'exec {program} "$@"'


def test_a_user_without_rights_runs_it(docker):
    order = [instruction for instruction, _ in docker]
    (user,) = of(docker, "USER")
    assert (
        user not in ("root", "0")
        and f"useradd --create-home --home-dir /home/{user} {user}"
        in of(docker, "RUN")[1]
    )
    assert order.index("USER") > max(k for k, name in enumerate(order) if name == "RUN")
