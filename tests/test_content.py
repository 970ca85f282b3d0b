"""What is kept is known by content: the same in another process, another for any change
that may change a number."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import types

import pytest
import torch
from torch.distributions import LogNormal, Normal, TransformedDistribution

from cingulum import ReducedWongWang
from cingulum.content import NoContent, content_digest

SOURCE = """
import functools
FACTOR = {factor}

def helper(v):
    return FACTOR * v

def used(v):
    return helper(v) + 1

class Model:
    gain = {gain}

    def step(self, v):
        return used(v) * self.gain

def power(p):
    return lambda v: v ** p

first = power({power})
second = functools.partial(used, {power})
"""


def user_module(factor=2.0, gain=3, power=2) -> types.ModuleType:
    module = types.ModuleType("mine")
    exec(SOURCE.format(factor=factor, gain=gain, power=power), vars(module))
    return module


@pytest.mark.parametrize("name", ["used", "Model", "first", "second"])
def test_code_is_known_by_what_it_does(name):
    once, again = getattr(user_module(), name), getattr(user_module(), name)
    assert once is not again and content_digest(once) == content_digest(again)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("used", {"factor": 4.0}),
        ("Model", {"factor": 4.0}),
        ("Model", {"gain": 4}),
        ("first", {"power": 3}),
        ("second", {"power": 3}),
    ],
)
def test_a_change_in_what_it_uses_is_a_change(name, change):
    before, after = getattr(user_module(), name), getattr(user_module(**change), name)
    assert content_digest(before) != content_digest(after)


def test_an_edited_helper_is_noticed():
    module = user_module()
    before = content_digest(module.Model)
    exec("def helper(v):\n    return v - 1\n", vars(module))
    assert content_digest(module.Model) != before


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            torch.arange(2000.0),
            torch.arange(2000.0).index_fill(0, torch.tensor(999), 1),
        ),
        (torch.zeros(2), torch.zeros(2, dtype=torch.float64)),
        (torch.zeros(2, 1), torch.zeros(1, 2)),
        (LogNormal(0.0, 1.0), LogNormal(0.0, 1.0000001)),
        (Normal(torch.zeros(2), 1.0), Normal(torch.tensor([0.0, 1e-9]), 1.0)),
        (("a", "bc"), ("ab", "c")),
        ([1, 2], [2, 1]),
        ({"a": 1}, {"b": 1}),
        ({1, 2}, {1, 3}),
        (1, True),
        (0.0, -0.0),
        (functools.partial(max, 1), functools.partial(max, 2)),
        (ReducedWongWang(), ReducedWongWang(J_i=1.1)),
    ],
)
def test_values_that_differ(one, other):
    assert content_digest(one) != content_digest(other)


def test_a_prior_is_the_same_after_use():
    def prior() -> TransformedDistribution:
        return TransformedDistribution(
            Normal(0.0, 1.0), [torch.distributions.ExpTransform(cache_size=1)]
        )

    used = prior()
    used.log_prob(used.sample())
    assert content_digest(used) == content_digest(prior())


def test_the_digest_is_the_same_in_every_process():
    command = (
        "from cingulum import ReducedWongWang, JansenRit, fc\n"
        "from cingulum.content import content_digest\n"
        "print(content_digest(ReducedWongWang, {JansenRit, ReducedWongWang}, fc))"
    )
    printed = []
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", command],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        printed.append(done.stdout.strip())
    assert printed[0] == printed[1] and len(printed[0]) == 64


def test_what_cannot_be_compared_is_named():
    with pytest.raises(NoContent, match="generator"):
        content_digest(x for x in ())
