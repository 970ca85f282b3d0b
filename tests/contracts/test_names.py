"""One name, one thing; the public names are what they say, whatever was imported
before."""

import ast
import importlib
import pkgutil
from collections import defaultdict
from pathlib import Path

import cingulum

ROOT = Path(cingulum.__file__).parent

EVERY_COMMAND = {"add_options", "execute"}
"""What each module of `cingulum.cli` has."""


def modules():
    """Every module below the package, with its syntax tree."""
    for path in sorted(ROOT.rglob("*.py")):
        if path.stem not in ("__init__", "__main__"):
            yield path.relative_to(ROOT), ast.parse(path.read_text())


def public_definitions(tree):
    for node in tree.body:
        is_definition = isinstance(node, ast.ClassDef | ast.FunctionDef)
        if is_definition and not node.name.startswith("_"):
            yield node.name


def test_no_public_name_is_hidden_by_a_module():
    submodules = {module.name for module in pkgutil.iter_modules(cingulum.__path__)}
    assert not submodules & set(cingulum._WHERE)
    for name, module in cingulum._WHERE.items():
        assert getattr(cingulum, name) is getattr(importlib.import_module(module), name)


def test_no_class_or_function_has_the_name_of_another():
    places = defaultdict(list)
    for path, tree in modules():
        for name in public_definitions(tree):
            places[name].append(str(path))
    twice = {name: paths for name, paths in places.items() if len(paths) > 1}
    assert not {name: twice[name] for name in twice if name not in EVERY_COMMAND}


def test_no_module_is_named_like_a_function_it_holds():
    for path, tree in modules():
        assert path.stem not in set(public_definitions(tree)), path
