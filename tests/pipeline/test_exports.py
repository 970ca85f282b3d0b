"""The words of `cingulum.pipeline` are what they say, whatever was imported before."""

import importlib
import pkgutil

import cingulum
import cingulum.pipeline


def test_no_word_is_hidden_by_a_module():
    for package in (cingulum, cingulum.pipeline):
        modules = {one.name for one in pkgutil.iter_modules(package.__path__)}
        assert not modules & set(package._WHERE), package.__name__
        for name, where in package._WHERE.items():
            assert getattr(package, name) is getattr(
                importlib.import_module(where), name
            )
