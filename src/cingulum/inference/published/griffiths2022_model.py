"""The model of Griffiths et al. 2022, doi:10.1101/2022.05.19.492664, as its code
computes it: for comparison only, see `griffiths2022`.

What was published, with its own units and faults: neural constants in ms and
haemodynamic ones in s on one step of 0.05, rates 0.65 and 0.41 used as time constants,
squashed states. Variant "A" is the code behind the paper's Figures 3, 4 and S2, "B" the
published file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial

import torch
from jaxtyping import Float
from torch import Tensor

from cingulum.brain.connectome import check_weights
from cingulum.errors import InputError

DT = 0.05
"""Step of the integration: ms for the neurons, s for the blood."""

FLOOR = 0.001
"""Added to rectified parameters."""

WINDOW = 20
"""Volumes in a window."""

WARM_UP = 2
"""Windows that a free-running simulation leaves out at its start."""

GAINS = ("g", "g_EE", "g_IE", "g_EI")

Parameters = dict[str, Tensor]
"""One number per fit by name, and under "w" the gains of its connections."""

Priors = Mapping[str, tuple[float, float]]
"""Mean and precision by the name of a parameter."""


@dataclass(frozen=True, eq=False)
class PublishedParameters:
    """Start values of a published fit, or the truth of a simulation: one number, or one
    per fit of the batch.

    prior: (mean, precision) of every penalised parameter; both are trained too

    The defaults are those of the four-parameter runs with variant A (notebook 03d).
    """

    g: float | Tensor = 100.0
    g_EE: float | Tensor = 3.0
    g_IE: float | Tensor = 0.1
    g_EI: float | Tensor = 0.1
    std_in: float | Tensor = 0.05
    std_out: float | Tensor = 0.02
    I_0: float | Tensor = 0.2
    prior: Priors = field(
        default_factory=lambda: {"g": (100.0, 10.0), "g_EE": (3.0, 10.0)}
    )


TWO_PARAMETERS = PublishedParameters(
    g=80.0,
    g_EE=6.0,
    g_IE=10.0,
    g_EI=1.0,
    std_in=0.03,
    std_out=0.02,
    I_0=0.32,
    prior={"g_IE": (10.0, 0.3), "g_EI": (1.0, 5.0)},
)
"""Start of the two-parameter fits with variant B (notebook 04e), which trains the
penalised parameters only."""


@dataclass(frozen=True, eq=False)
class States:
    """States of the network at one step, or at several in a row.

    neural: E and I; blood: x, f, v, q of the Balloon-Windkessel model
    """

    neural: Float[Tensor, "2 step fit region"]
    blood: Float[Tensor, "4 step fit region"]

    @property
    def last(self) -> States:
        """A copy, so that the memory of the states before can be freed."""
        return States(_copy_of_last(self.neural), _copy_of_last(self.blood))

    @property
    def before_last(self) -> States:
        """What the last step follows from: all states but the last."""
        return States(self.neural[:, :-1], self.blood[:, :-1])

    @property
    def excitation(self) -> Float[Tensor, "step fit region"]:
        return self.neural[0]

    def volumes(self, steps: int) -> Float[Tensor, "4 volume fit region"]:
        """The blood at the volumes, one every so many steps after the first state."""
        return self.blood[:, steps::steps]


def _copy_of_last(states: Tensor) -> Float[Tensor, "state 1 fit region"]:
    return states[:, -1:].detach().clone()


@dataclass(frozen=True, eq=False)
class Noise:
    """Standard normal numbers for a window: of the neurons at every step, of the
    scanner at every volume."""

    neural: Float[Tensor, "2 step fit region"]
    scanner: Float[Tensor, "volume fit region"]


def initial_states(
    like: Float[Tensor, "fit region"], generator: torch.Generator
) -> States:
    # Uniform between 0 and 0.45; of the blood, above its rest.
    uniform = 0.45 * torch.rand(
        6, 1, *like.shape, generator=generator, dtype=like.dtype, device=like.device
    )
    return States(uniform[:2], uniform[2:] + _resting_blood(like))


def _resting_blood(like: Tensor) -> Float[Tensor, "4 1 1 1"]:
    return _per_state(like, (0.0, 1.0, 1.0, 1.0))


def _per_state(like: Tensor, values: tuple[float, ...]) -> Float[Tensor, "state 1 1 1"]:
    """Constants of E and I, or of x, f, v and q, shaped to meet the states."""
    return like.new_tensor(values).reshape(-1, 1, 1, 1)


def window_noise(
    variant: Variant, like: Float[Tensor, "fit region"], generator: torch.Generator
) -> Noise:
    draw = partial(
        torch.randn, generator=generator, dtype=like.dtype, device=like.device
    )
    neural = draw(2, variant.steps * WINDOW, *like.shape)
    return Noise(neural, scanner=draw(WINDOW, *like.shape))


@dataclass(frozen=True, eq=False)
class StepConstants:
    """What every step of a window needs, shaped to meet the states: computed once per
    window, as it costs as much as a step.

    background: input to E and I from outside; recruited: whether growth declines with
    the state, 1 for E and 0 for I
    """

    g: Float[Tensor, "fit 1"]
    g_EE: Float[Tensor, "fit 1"]
    g_IE: Float[Tensor, "fit 1"]
    g_EI: Float[Tensor, "fit 1"]
    background_E: Float[Tensor, "fit 1"]
    background_I: Float[Tensor, "fit 1"]
    noise: Float[Tensor, "fit 1"]
    std_out: Float[Tensor, "fit 1"]
    gamma: Float[Tensor, "2 1 1 1"]
    decay: Float[Tensor, "2 1 1 1"]
    recruited: Float[Tensor, "2 1 1 1"]
    a: Float[Tensor, "2 1 1 1"]
    b: Float[Tensor, "2 1 1 1"]
    d: Float[Tensor, "2 1 1 1"]
    resting_blood: Float[Tensor, "4 1 1 1"]


def step_constants(p: Parameters) -> StepConstants:
    return StepConstants(
        g=p["g"].unsqueeze(-1),
        g_EE=_positive(p["g_EE"]).unsqueeze(-1),
        g_IE=_positive(p["g_IE"]).unsqueeze(-1),
        g_EI=_positive(p["g_EI"]).unsqueeze(-1),
        background_E=p["I_0"].unsqueeze(-1),
        background_I=0.7 * p["I_0"].unsqueeze(-1),
        noise=math.sqrt(DT) * (0.02 + p["std_in"].relu()).unsqueeze(-1),
        std_out=_positive(p["std_out"]).unsqueeze(-1),
        gamma=_per_state(p["g"], (0.641e-3, 1e-3)),
        decay=_per_state(p["g"], (1 / 100, 1 / 10)),
        recruited=_per_state(p["g"], (1.0, 0.0)),
        a=_per_state(p["g"], (310.0, 615.0)),
        b=_per_state(p["g"], (125.0, 177.0)),
        d=_per_state(p["g"], (0.16, 0.087)),
        resting_blood=_resting_blood(p["g"]),
    )


def _positive(value: Tensor) -> Tensor:
    return FLOOR + value.relu()


def firing(x: Tensor, a: Tensor, b: Tensor, d: Tensor) -> Tensor:
    """R(x), equation 6, as guarded in the code: positive, with a kink at a x = b, and
    1/d there only nearly."""
    u = a * x - b
    return (1e-5 + u.abs()) / (1e-5 * d + (1 - torch.exp(-d * u)).abs())


def neural_step(
    variant: Variant,
    k: StepConstants,
    s: Float[Tensor, "2 step fit region"],
    received: Float[Tensor, "step fit region"],
    noise: Float[Tensor, "2 step fit region"],
) -> Float[Tensor, "2 step fit region"]:
    """An Euler-Maruyama step of E and I, equations 4-13; received: Σ_j L_ij E_j."""
    E, I = s
    to_E = k.background_E + k.g_EE * E + k.g * received - k.g_IE * I
    to_I = k.background_I + k.g_EI * E - I
    current = variant.bound(torch.stack([to_E, to_I]).relu())
    # gamma of E is per ms, and saturates; gamma of I is a unit conversion.
    growth = k.gamma * (1 - k.recruited * s) * firing(current, k.a, k.b, k.d)
    stepped = s + DT * (growth - k.decay * s) + k.noise * noise
    # Squashed as published: no state exceeds 1.
    return torch.tanh(variant.offset + stepped.relu())


def blood_step(
    variant: Variant,
    k: StepConstants,
    h: Float[Tensor, "4 step fit region"],
    E: Float[Tensor, "step fit region"],
) -> Float[Tensor, "4 step fit region"]:
    """One Euler step of the Balloon-Windkessel states x, f, v, q, equations 14-17."""
    x, f, v, q = h
    # 0.65, 0.41 and 0.98 divide, though the first two are rates: as published.
    outflow = v ** (1 / 0.32)
    extracted = f * (1 - torch.exp(math.log(1 - 0.34) / f)) / 0.34
    dx = E - x / 0.65 - (f - 1) / 0.41
    dv = (f - outflow) / 0.98
    dq = (extracted - q * outflow / v) / 0.98
    stepped = h + DT * torch.stack([dx, x, dv, dq])
    return k.resting_blood + variant.bound(stepped - k.resting_blood)


def bold_signal(
    k: StepConstants,
    volumes: Float[Tensor, "4 volume fit region"],
    noise: Float[Tensor, "volume fit region"],
) -> Float[Tensor, "fit region volume"]:
    """Equation 18, of the blood at the volumes."""
    _, _, v, q = volumes
    signal = 100 * 0.02 / 0.34 * (2.38 * (1 - q) + 2.0 * (1 - q / v) + 0.48 * (1 - v))
    return (signal + k.std_out * noise).movedim(0, -1)


def normalised_counts(
    weights: Float[Tensor, "region region"],
) -> Float[Tensor, "region region"]:
    """Zero diagonal, symmetric, log1p, Frobenius norm 1: what every notebook does to
    tract counts."""
    weights = torch.log1p(_symmetric(weights)).fill_diagonal_(0.0)
    return weights / weights.norm()


def _symmetric(weights: Tensor) -> Tensor:
    return (weights + weights.mT) / 2


def negative_laplacian(
    variant: Variant, base: Float[Tensor, "region region"], p: Parameters
) -> Float[Tensor, "*fit region region"]:
    """C − diag(Σ_j C_ij), whose rows sum to zero; one per fit if the gains w are
    trained."""
    weights = _weights(variant, base, p)
    return weights - torch.diag_embed(weights.sum(-1))


def _weights(variant: Variant, base: Tensor, p: Parameters) -> Tensor:
    """Connection weights of Frobenius norm 1."""
    # Without free weights every gain is that of w = 0, which is 1.
    gains = p.get("w", torch.zeros_like(base))
    weights = variant.weigh(base, gains)
    # Trained gains change the shape of the connectome, not its size.
    return weights / torch.linalg.matrix_norm(weights, keepdim=True)


def received_from(
    laplacian: Float[Tensor, "*fit region region"],
    E: Float[Tensor, "step fit region"],
) -> Float[Tensor, "step fit region"]:
    """Σ_j L_ij E_j."""
    # One Laplacian for all fits is a plain product; one each needs them in front.
    if laplacian.ndim == 2:
        return E @ laplacian
    return (E.transpose(0, 1) @ laplacian).transpose(0, 1)


def simulate_window(
    variant: Variant,
    k: StepConstants,
    laplacian: Float[Tensor, "*fit region region"],
    start: States,
    noise: Float[Tensor, "2 step fit region"],
) -> States:
    """All states of a window, the first included."""
    neural = [start.neural]
    blood = [start.blood]
    with torch.no_grad():
        for kick in noise.split(1, dim=1):
            s = neural[-1]
            E = s[0]
            # Both from the state before: the blood sees this E, not the next.
            blood.append(blood_step(variant, k, blood[-1], E))
            neural.append(neural_step(variant, k, s, received_from(laplacian, E), kick))
        return States(torch.cat(neural, 1), torch.cat(blood, 1))


@dataclass(frozen=True, eq=False)
class PublishedNetwork:
    """The model with parameters: its variant, normalised connectome, and values of the
    parameters, which training changes in place."""

    variant: Variant
    base: Float[Tensor, "region region"]
    parameters: Parameters

    @property
    def constants(self) -> StepConstants:
        return step_constants(self.parameters)

    @property
    def laplacian(self) -> Float[Tensor, "*fit region region"]:
        return negative_laplacian(self.variant, self.base, self.parameters)


def free_running_bold(
    network: PublishedNetwork,
    volumes: int,
    like: Float[Tensor, "fit region"],
    generator: torch.Generator,
) -> Float[Tensor, "fit region volume"]:
    """BOLD with fixed parameters, fresh noise and a fresh initial state, without the
    windows of warming up."""
    variant = network.variant
    constants = network.constants
    laplacian = network.laplacian
    state = initial_states(like, generator)
    windows = []
    for _ in range(WARM_UP + math.ceil(volumes / WINDOW)):
        noise = window_noise(variant, like, generator)
        path = simulate_window(variant, constants, laplacian, state, noise.neural)
        state = path.last
        blood = path.volumes(variant.steps)
        windows.append(bold_signal(constants, blood, noise.scanner))
    return torch.cat(windows[WARM_UP:], -1)[..., :volumes]


def published_model(
    weights: Float[Tensor, "region region"],
    parameters: PublishedParameters,
    volumes: int,
    *,
    variant: str = "A",
    batch: tuple[int, ...] = (),
    seed: int = 0,
) -> Float[Tensor, "*batch region time"]:
    """BOLD of the published model with fixed parameters, after two windows of warming
    up (notebook 03a)."""
    code = variant_named(variant)
    n = len(weights)
    check_weights(weights, n)
    if volumes < 1:
        raise InputError(
            f"A simulation needs at least one volume; got {volumes}. Ask for more."
        )
    # Never read: it only tells the number of fits, dtype and device.
    like = weights.new_empty(math.prod(batch), n)
    network = PublishedNetwork(
        code, normalised_counts(weights), start_values(code, parameters, like)
    )
    generator = torch.Generator(weights.device).manual_seed(seed)
    bold = free_running_bold(network, volumes, like, generator)
    return bold.reshape(*batch, n, volumes)


def bifurcation_term(p: Parameters) -> Float[Tensor, "*fit"]:
    """5 (A g_IE² − B g_IE + C − g_EI)²: the "bifurcation constraint", a parabola typed
    in by hand and trained along."""
    A, B, C = _positive(p["A"]), _positive(p["B"]), _positive(p["C"])
    g_IE = _positive(p["g_IE"])
    g_EI = _positive(p["g_EI"])
    return 5 * (A * g_IE**2 - B * g_IE + C - g_EI) ** 2


def entropy_term(neural: Float[Tensor, "2 step fit region"]) -> Float[Tensor, "*fit"]:
    """0.1 times the mean of E ln E + (1 − E) ln(1 − E) and half the same of I: entropy
    is made large."""
    E, I = _negative_entropy(neural)
    return 0.1 * (E + 0.5 * I).mean((0, 2))


def _negative_entropy(x: Tensor) -> Tensor:
    return x * x.log() + (1 - x) * (1 - x).log()


def _penalties_a(
    p: Parameters, prior: Priors, neural: Tensor, volumes: Tensor
) -> Parameters:
    terms = {"bifurcation": bifurcation_term(p), "entropy": entropy_term(neural)}
    for name in prior:
        precision = _positive(p[f"{name}_precision"])
        distance = p[name].relu() - p[f"{name}_mean"].relu()
        # Plus ln v as published; a Gaussian density has minus. So the prior fades while
        # it is trained.
        terms[f"prior_{name}"] = precision * distance**2 + precision.log()
    return terms


def _penalties_b(
    p: Parameters, prior: Priors, neural: Tensor, volumes: Tensor
) -> Parameters:
    penalised = {"E": neural[0], "I": neural[1], "f": volumes[1], "v": volumes[2]}
    for name in prior:
        # One number per fit, between the axes of steps and regions.
        penalised[name] = p[name][None, :, None]
    terms = {}
    for name, value in penalised.items():
        mean = p[f"{name}_mean"].unsqueeze(-1)
        precision = p[f"{name}_precision"]
        distance = (value - mean).square().mean((0, 2))
        terms[f"prior_{name}"] = precision * distance - precision.log()
    return terms


def _weigh_a(base: Tensor, w: Tensor) -> Tensor:
    return _symmetric((1 + torch.tanh(w)) * base)


def _weigh_b(base: Tensor, w: Tensor) -> Tensor:
    # The second log1p, after that of `normalised_counts`, as published.
    return torch.log1p(_symmetric(torch.exp(w) * base))


def _unbounded(x: Tensor) -> Tensor:
    return x


def prior_parameters(prior: Priors) -> dict[str, float]:
    """Start values of the means and precisions, which are trained like parameters."""
    values = {}
    for name, (mean, precision) in prior.items():
        values[f"{name}_mean"] = mean
        values[f"{name}_precision"] = precision
    return values


@dataclass(frozen=True, eq=False)
class Variant:
    """One of the two codes; the defaults are variant A.

    steps: of integration per volume; averaged: last updates whose mean is the estimate
    bound: applied to currents and to deviations of the blood; offset: inside tanh
    weigh: (base, w) → weights; penalties: (parameters, prior, neural states, blood at
        the volumes) → terms of the loss
    trained: parameters that are trained besides those with a prior; hyper: start values
        of others that are trained
    """

    start: PublishedParameters = PublishedParameters()
    # 0.75 // 0.05 is 14: neither is exact in binary, and the floor counts.
    steps: int = 14
    rate: float = 0.01
    averaged: int = 100
    bound: Callable[[Tensor], Tensor] = torch.tanh
    offset: float = 1e-5
    weigh: Callable[[Tensor, Tensor], Tensor] = _weigh_a
    penalties: Callable[[Parameters, Priors, Tensor, Tensor], Parameters] = _penalties_a
    trained: tuple[str, ...] = (*GAINS, "std_in", "std_out")
    hyper: Mapping[str, float] = field(
        default_factory=lambda: {"A": 0.5, "B": 20.0, "C": 10.0}
    )

    @cached_property
    def trained_names(self) -> set[str]:
        """Everything that an update may change; "w" is there only with free weights."""
        prior = self.start.prior
        return {*self.trained, *self.hyper, *prior, *prior_parameters(prior), "w"}


VARIANT_B = Variant(
    start=TWO_PARAMETERS,
    steps=15,
    rate=0.001,
    averaged=20,
    bound=_unbounded,
    offset=0.0,
    weigh=_weigh_b,
    penalties=_penalties_b,
    trained=(),
    hyper=prior_parameters(
        {"E": (0.6, 2500.0), "I": (0.3, 2500.0), "f": (1.0, 100.0), "v": (1.0, 100.0)}
    ),
)
VARIANTS = {"A": Variant(), "B": VARIANT_B}


def variant_named(name: str) -> Variant:
    """Raises InputError for an unknown variant."""
    if name not in VARIANTS:
        raise InputError(
            f"The published code has the variants {', '.join(VARIANTS)}; got "
            f"{name!r}. Choose one."
        )
    return VARIANTS[name]


def start_values(
    variant: Variant,
    start: PublishedParameters,
    like: Float[Tensor, "fit region"],
) -> Parameters:
    """All parameters, hyperparameters included, one number per fit."""
    # Not `asdict`, which would copy tensors.
    values = {name: value for name, value in vars(start).items() if name != "prior"}
    values |= variant.hyper
    values |= prior_parameters(start.prior)
    parameters = {}
    for name, value in values.items():
        number = torch.as_tensor(value).to(like)
        # A copy for every parameter, as training changes it in place.
        parameters[name] = number.expand(len(like)).clone()
    return parameters
