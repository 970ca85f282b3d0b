"""Every operation that a neural mass may use is lowered to what torch means by it, or
refused: casts, truth values, whole numbers, and constants of any shape among them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cingulum import Brain, Connectome, Sensor, simulate
from cingulum.brain.dynamics import Dynamics, State, param
from cingulum.simulation.compiler.arithmetic import ELEMENTWISE
from cingulum.simulation.compiler.axes import ARRAYS
from cingulum.simulation.compiler.graph_values import CannotLower
from cingulum.simulation.compiler.tracing import Form, trace

TWO = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
MIXING = torch.tensor([[0.3, -1.2], [0.7, 0.4]], dtype=torch.float64)

Expression = Callable[[Tensor], Tensor]

# Each takes the states (2, region) to an array that broadcasts to them.
NUMBERS: dict[str, Expression] = {
    "integer cast": lambda x: (10 * x).long().double(),
    "int32": lambda x: (10 * x).int() + x,
    "cast of a negative number": lambda x: (-7.9 * x).long() * x,
    "truth value as a number": lambda x: (x > 0.3).to(x.dtype),
    "truth value times state": lambda x: (x > 0.3) * x,
    "truth value of a number": lambda x: (10 * x).long().bool().double(),
    "two truth values added": lambda x: ((x > 0.3) + (x > 0.1)).double(),
    "truth values summed": lambda x: (x > 0.3).sum(0) * x,
    "whole numbers and floats": lambda x: (3 * x).long() * 2 + 0.5 * x,
    "float32 in between": lambda x: x.float() / 3 + x,
    "float32 truth value": lambda x: 0.3 * (x > 0.3).float() * x,
    "rounded down": lambda x: torch.floor(7 * x) + torch.ceil(5 * x),
    "rounded": lambda x: torch.round(7 * x) + torch.trunc(-5 * x) + (3 * x).frac(),
    "rounded to a decimal": lambda x: torch.round(x, decimals=1),
    "division rounded down": lambda x: torch.div(x, -0.1, rounding_mode="floor"),
    "division cut off": lambda x: torch.div(x, -0.1, rounding_mode="trunc"),
    "floor division": lambda x: (x - 0.4) // 0.07,
    "remainder": lambda x: (x - 0.5) % 0.3 + torch.remainder(x, -0.2),
    "fmod": lambda x: torch.fmod(x - 0.5, 0.3),
    "whole division": lambda x: (100 * x).long() // 7 + (100 * x).long() % 7,
    "reciprocals and roots": lambda x: x.abs().rsqrt() + 1 / x,
    "power by a state": lambda x: x.abs() ** x + 2.0**x,
    "infinite exponent": lambda x: x.abs() ** torch.tensor(float("inf")),
    "logarithms": lambda x: (x * x).log2() + (x * x).log10() + torch.exp2(x),
    "circular": lambda x: torch.tan(x) + torch.atan(x) + torch.atan2(x, x + 1),
    "inverse circular": lambda x: torch.asin(x.tanh()) + torch.acos(x.tanh()),
    "hyperbolic": lambda x: torch.sinh(x) + torch.cosh(x),
    "inverse hyperbolic": lambda x: (
        torch.asinh(x) + torch.acosh(1 + x * x) + torch.atanh(0.5 * x.tanh())
    ),
    "error function": lambda x: torch.erf(x) + torch.erfc(x),
    "log gamma": lambda x: torch.lgamma(1 + x * x),
    "hypot": lambda x: torch.hypot(x, x + 1),
    "log add exp": lambda x: torch.logaddexp(x, 2 * x),
    "sinc": lambda x: torch.sinc(x),
    "xlogy": lambda x: torch.xlogy(x, x * x + 1),
    "signs": lambda x: torch.sign(x - 0.5) + x.heaviside(torch.tensor(0.5).double()),
    "copied sign": lambda x: torch.where(x.signbit(), -x, x),
    "not a number": lambda x: torch.nan_to_num(torch.log(x), nan=0.3, neginf=-2.0),
    "is not a number": lambda x: torch.isnan(torch.log(x)) * x,
    "finite": lambda x: torch.isfinite(1 / (x > 0.3).double()) * x,
    "relu": lambda x: F.relu(x - 0.5) + F.relu6(9 * x) + F.leaky_relu(x - 0.5),
    "smooth rectifiers": lambda x: F.elu(x) + F.gelu(x) + F.silu(x) + F.mish(x),
    "more rectifiers": lambda x: (
        F.celu(x) + F.selu(x) + F.softsign(x) + F.logsigmoid(x)
    ),
    "hard functions": lambda x: F.hardtanh(3 * x) + F.hardsigmoid(x) + F.hardswish(x),
    "softplus": lambda x: F.softplus(x, beta=2.0, threshold=3.0),
    "gelu by tanh": lambda x: F.gelu(x, approximate="tanh"),
    "threshold": lambda x: F.threshold(x, 0.4, 0.1) + F.softshrink(x, 0.2),
    "clamp": lambda x: torch.clamp(x, min=0.2) + x.clip(max=0.6) + x.clamp(x - 1, x),
    "largest": lambda x: torch.maximum(x, 1 - x) + torch.minimum(x, x * x),
    "logic": lambda x: torch.where((x > 0.2) & ~(x > 0.7) | (x < -1), x, -x),
    "exclusive or": lambda x: ((x > 0.2) ^ (x > 0.7)) * x,
    "logical functions": lambda x: (
        torch.logical_xor(x > 0.2, x > 0.7).logical_not() * x
    ),
    "equality": lambda x: (x == x.flip(0)) * x + ((x > 0.3) != (x > 0.1)) * x,
    "masked": lambda x: x.masked_fill(x > 0.5, 0.2),
    "lerp": lambda x: torch.lerp(x, x * x, 0.3) + torch.addcmul(x, x, x, value=0.2),
    # Constants of every shape.
    "a weight a state": lambda x: (TWO * x).sum(0),
    "a weight a state, by hand": lambda x: TWO[0] * x[0] + TWO[1, 0] * x[1],
    "constant (1, 1)": lambda x: torch.full((1, 1), 0.3).double() * x,
    "constant (1,)": lambda x: torch.tensor([0.3]).double() * x,
    "constant without axes": lambda x: torch.tensor(0.3).double() * x,
    "constant of one axis": lambda x: torch.tensor([0.3, 0.7]).double()[1] * x,
    "sum of a constant": lambda x: TWO.sum() * x + TWO.mean() * x,
    "constant times constant": lambda x: (TWO * TWO).sum(0) * x,
    "zeros and ones": lambda x: x + torch.zeros_like(x) + torch.ones(2, 1).double(),
    "whole constant": lambda x: torch.tensor([[1], [2]]) * x,
    "truth constant": lambda x: torch.tensor([[True], [False]]) * x,
    "range": lambda x: torch.arange(2).unsqueeze(-1) * x,
    "identity": lambda x: torch.eye(2).double() @ x,
    # Arrays.
    "matrix product": lambda x: MIXING @ x,
    "product from the right": lambda x: (x.T @ MIXING.T).T,
    "einsum": lambda x: torch.einsum("ij,jr->ir", MIXING, x),
    "linear": lambda x: F.linear(x.T, MIXING, TWO[:, 0]).T,
    "mean of states": lambda x: x.mean(0) + x.mean(0, keepdim=True),
    "spread of states": lambda x: x.std(0) + x.var(0, unbiased=False),
    "norm": lambda x: torch.linalg.vector_norm(x, dim=0) + x.norm(dim=0),
    "products of states": lambda x: x.prod(0) + x.cumprod(0),
    "running sum": lambda x: x.cumsum(0) + x.diff(dim=0),
    "largest state": lambda x: x.amax(0) - x.amin(0) + x.max(0).values,
    "which is largest": lambda x: x.argmax(0) * x + x.min(0).indices,
    "any and all": lambda x: (x > 0.5).any(0) * x + (x > 0.1).all(0) * x,
    "softmax": lambda x: x.softmax(0) + F.log_softmax(x, 0) + x.logsumexp(0),
    "split": lambda x: torch.cat(list(reversed(x.split(1)))) + x.chunk(2)[1],
    "unbind": lambda x: torch.stack(x.unbind()[::-1]),
    "roll and flip": lambda x: x.roll(1, 0) + x.flip(0),
    "chosen states": lambda x: x[[1, 0]] + x.index_select(0, torch.tensor([1, 1])),
    "masked states": lambda x: x[torch.tensor([False, True])],
    "repeated": lambda x: x[:1].repeat(2, 1) + x[1:].expand(2, -1) + x[:1].tile(2, 1),
    "views": lambda x: x.reshape(2, 1, -1).squeeze(1) + x.unsqueeze(-1)[..., 0],
    "moved axes": lambda x: x.movedim(0, 1).transpose(0, 1) + x.permute(1, 0).T,
    "padded": lambda x: F.pad(x[:1], (0, 0, 1, 0)),
    "outer over states": lambda x: (x[:, None] * x[None]).sum(0),
    "assigned": lambda x: _assigned(x),
    "written row by row": lambda x: _written(x),
}

# What depends on other regions, their number or chance, and what overflows.
REFUSED: dict[str, Expression] = {
    "mean over regions": lambda x: x - x.mean(-1, keepdim=True),
    "sum over everything": lambda x: x * x.sum(),
    "number of regions": lambda x: x / x.shape[-1],
    "mean of squares over regions": lambda x: x * (x * x).mean(),
    "neighbours": lambda x: x.roll(1, -1),
    "reversed regions": lambda x: x.flip(-1),
    "first region": lambda x: x - x[:, :1],
    "outer over regions": lambda x: (x[0][:, None] * x[0]).sum(0) + x,
    "product over regions": lambda x: x @ x.T @ x,
    "mixed by a view": lambda x: x.reshape(-1, 2).T + x,
    "running sum over regions": lambda x: x.cumsum(-1),
    "order of regions": lambda x: x.sort(-1).values,
    "position of a region": lambda x: x + torch.arange(x.shape[-1]),
    "chance": lambda x: x + torch.rand_like(x),
    "choice in Python": lambda x: x if x[0, 0] > 0.5 else -x,
    "whole numbers by bits": lambda x: ((10 * x).long() & 3) * x,
    "numbers that overflow": lambda x: (300 * x).to(torch.uint8) * x,
    "half precision": lambda x: x.half() + x,
}


def _assigned(x: Tensor) -> Tensor:
    y = x.clone()
    y[0] = x[1] * 2
    y[1:] += 1
    return y


def _written(x: Tensor) -> Tensor:
    y = torch.empty_like(x)
    y[0], y[1] = x[1], x[0] * x[1]
    return y


def mass_of(expression: Expression) -> Dynamics:
    @dataclass(frozen=True, eq=False)
    class Expressed(Dynamics):
        k: float = param(5.0, "1/s", 0.0, 50.0, "decay")
        states: ClassVar = (State("a", 0.37), State("b", 0.61))

        def drift(self, x: Tensor, u: Tensor) -> Tensor:
            return -self.k * x + expression(x) + 0 * u

        def output(self, x: Tensor) -> Tensor:
            return x[:1]

    return Expressed()


def traced(expression: Expression, gradient: bool = False):
    """Tracing compares what it made with the mass in numbers; CannotLower where they
    differ."""
    wanted = ("mass.k",) if gradient else ()
    form = Form("euler", False, True, ("k",), (), wanted, False, gradient)
    return trace(mass_of(expression), Sensor(tr=0.1).response, form)


@pytest.mark.parametrize("what", NUMBERS)
def test_the_operation_is_lowered_to_what_torch_means(what):
    assert traced(NUMBERS[what]).forward["advance"].needed()


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_a_function_of_one_region_is_refused(what):
    with pytest.raises(CannotLower):
        traced(REFUSED[what])


WITHOUT_DERIVATIVE = {"floor division", "signs", "log gamma", "assigned"}
"""torch has none for floor_divide and heaviside; the engine none of lgamma, and of
`+=` on a part of a tensor."""


@pytest.mark.parametrize("what", sorted(set(NUMBERS) - WITHOUT_DERIVATIVE))
def test_its_gradient_is_lowered_too(what):
    assert traced(NUMBERS[what], gradient=True).backward["advance_back"].needed()


def run(mass: Dynamics, engine: str, dtype: torch.dtype) -> Tensor:
    weights = torch.rand(5, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    connectome = Connectome(weights + weights.T, tuple("abcde")).normalised()
    brain = Brain(mass, connectome, Sensor(tr=0.1), strength=0.0, noise=0.3)
    return simulate(brain, 0.1, dt=0.01, engine=engine, seed=1).end.neural


@pytest.mark.parametrize("first", range(0, len(NUMBERS), 12))
def test_machine_code_gives_the_numbers_of_torch(first):
    """A dozen operations at a time, in both engines."""
    chosen = list(NUMBERS.values())[first : first + 12]

    def together(x: Tensor) -> Tensor:
        return sum(expression(x).expand(2, -1) * 0.1 for expression in chosen)

    mass = mass_of(together)
    compiled, reference = (
        run(mass, engine, torch.float64) for engine in ("compiled", "reference")
    )
    torch.testing.assert_close(compiled, reference, rtol=1e-11, atol=1e-12)
    assert compiled.std() > 0


def random_expression(seed: int) -> Expression:
    """A random program of casts, constants, truth values, whole and other numbers."""
    generator = torch.Generator().manual_seed(seed)

    def pick(count: int) -> int:
        return int(torch.randint(count, (), generator=generator))

    constants = [0.3, -2, True, torch.tensor(3), torch.tensor([0.7]).double()]
    constants += [TWO, torch.tensor([[2], [-1]]), torch.tensor([[True], [False]])]
    single: list[Expression] = [
        lambda a: (4 * a).long(),
        lambda a: a.double().tanh(),
        lambda a: a > 0.2,
        lambda a: a.float() * 0.5,
        lambda a: a.bool(),
        lambda a: torch.floor(a.double() * 3) * 0.1,
        lambda a: a.double().softmax(0),
        lambda a: a.double().cumsum(0) * 0.5,
        lambda a: MIXING @ a.double(),
        lambda a: a.flip(0),
    ]
    pair: list[Callable[[Tensor, Tensor], Tensor]] = [
        lambda a, b: a + b,
        lambda a, b: a * b,
        lambda a, b: torch.where(a > b, a, b),
        lambda a, b: torch.remainder(a, 0.7) - b * 1,
        lambda a, b: torch.div(a, 0.3, rounding_mode="floor") * 0.1 + b,
        lambda a, b: torch.maximum(a.double(), b.double()),
        lambda a, b: (a > b) & (b < 0.4),
        lambda a, b: torch.stack([a.double(), b.double()]).mean(0),
        lambda a, b: a // 3 + b % 2,
    ]
    plan = [(pick(len(single)), pick(len(pair)), pick(12), pick(12)) for _ in range(7)]

    def expression(x: Tensor) -> Tensor:
        wide = [
            constant * torch.ones_like(x, dtype=torch.bool) for constant in constants
        ]
        values = [x, x[:1].expand(2, -1), -x, x * x, *wide]
        for one, two, i, j in plan:
            values[i] = single[one](pair[two](values[i], values[j]))
        return sum(value.double().tanh() for value in values[:4])

    return expression


@pytest.mark.parametrize("seed", range(60))
def test_random_programs_of_mixed_types(seed):
    """Compared in numbers by the tracing itself; a program may be refused, but only by
    name."""
    assert traced(random_expression(seed)).forward["advance"].needed()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_programs_in_machine_code(seed):
    first, second = random_expression(seed), random_expression(seed + 90)
    mass = mass_of(lambda x: first(x) + second(x))
    compiled, reference = (
        run(mass, engine, torch.float64) for engine in ("compiled", "reference")
    )
    torch.testing.assert_close(compiled, reference, rtol=1e-11, atol=1e-12)


def test_the_page_lists_what_is_compiled():
    page = (Path(__file__).parents[2] / "docs" / "engine.md").read_text()
    listed = page.split("```text\n")[-1].split("```")[0].split()
    names = [*ELEMENTWISE, *(name for name in ARRAYS if "." not in name)]
    assert listed == sorted(names)
