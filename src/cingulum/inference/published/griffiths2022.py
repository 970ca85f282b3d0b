"""The training scheme of Griffiths et al. 2022, doi:10.1101/2022.05.19.492664, re-run
for comparison: not for use.

What was published, with its own units and faults: neural constants in ms and
haemodynamic ones in s on one step of 0.05, rates 0.65 and 0.41 used as time constants,
squashed states, connectivity of 20 volumes as target, priors trained along. What it
recovers does not depend on the data (docs/decisions/009); the method we recommend is
`cingulum.inference.fitting`. Variant "A" is the code behind the paper's Figures 3, 4
and S2, "B" the published file.

Departures: the original had no seed anywhere, here initial state and noise come from
one seeded `torch.Generator`; start values are given, not drawn around the prior;
gradients are computed by the adjoint of a window's steps instead of a tape (the same
numbers, sooner); the free run uses the point estimate; B's early stop, after an epoch
whose last window is worse than that of the epoch before, is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from cingulum.brain.connectome import check_weights
from cingulum.errors import InputError
from cingulum.measures import fc, similarity
from cingulum.progress import track

DT, FLOOR, WINDOW, DROPPED = 0.05, 0.001, 20, 10
"""Step of the integration (ms for the neurons, s for the blood); what is added to
rectified parameters; volumes in a window; volumes at the start of an epoch that its
connectivity leaves out."""
GAINS = ("g", "g_EE", "g_IE", "g_EI")

Values = dict[str, Tensor]
Priors = Mapping[str, tuple[float, float]]
_Path = tuple[Tensor, Tensor]
_grad = partial(torch.autograd.grad, retain_graph=True, materialize_grads=True)


@dataclass(frozen=True, eq=False)
class Published:
    """Start values of a published fit, or the truth of a simulation: one number, or one
    a fit of the batch.

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


TWO_PARAMETERS = Published(
    80.0,
    6.0,
    10.0,
    1.0,
    0.03,
    0.02,
    0.32,
    prior={"g_IE": (10.0, 0.3), "g_EI": (1.0, 5.0)},
)
"""Start of the two-parameter fits with variant B (notebook 04e), which trains the
penalised parameters only."""


@dataclass(frozen=True, eq=False)
class PublishedFit:
    """What the published code reports after a fit.

    estimates: mean of the last updates (A: 100; B: 20)
    history: a row a window and fit: loss, its terms, and every trained number after the
        update
    training_fc, training_fc_r: of windows simulated while the parameters moved; r with
        the recorded FC, every epoch
    free_running_fc, free_running_fc_r: of a run with fixed parameters, fresh noise and
        a fresh initial state
    weights: the normalised connectome the fit ends with
    """

    estimates: dict[str, Float[Tensor, "*batch"]]
    history: pd.DataFrame
    training_fc: Float[Tensor, "*batch region region"]
    training_fc_r: Float[Tensor, "*batch epoch"]
    free_running_fc: Float[Tensor, "*batch region region"]
    free_running_fc_r: Float[Tensor, "*batch"]
    weights: Float[Tensor, "*batch region region"]


def published_fit(
    weights: Float[Tensor, "region region"],
    bold: Float[Tensor, "*batch region time"],
    *,
    variant: str = "A",
    start: Published | None = None,
    free_weights: bool = False,
    epochs: int = 20,
    rate: float | None = None,
    test_windows: int = 120,
    seed: int = 0,
    show_progress: bool = False,
) -> PublishedFit:
    """Fit a recording, or a batch of recordings side by side, as Griffiths et al. 2022
    did: for comparison only.

    weights: tract counts; log1p and division by the Frobenius norm are applied here, as
        in the paper's notebooks
    start: start values and priors; by default the variant's own
    free_weights: also train one gain a connection
    rate: of Adam; by default 0.01 (A) or 0.001 (B)

    Dtype follows `bold`; the original was float32. Volumes that do not fill a window
    are dropped. Raises InputError for an unknown variant, and for recordings that do
    not fit the connectome or fill no window.
    """
    recorded = _checked(weights, bold, epochs)
    generator, like = torch.Generator(bold.device).manual_seed(seed), recorded[..., 0]
    code = _code(variant)
    code = replace(code, start=start or code.start, rate=rate or code.rate)
    base = prepared(weights.to(like))
    rounds = track(range(epochs), "published fit", show=show_progress)
    trained, fc_r, history, final = _train(
        code, base, recorded, free_weights, rounds, generator
    )
    columns = {name: torch.stack([row[name] for row in history]) for name in history[0]}
    estimates = {name: columns[name][-code.averaged :].mean(0) for name in GAINS}
    run = _free_running(
        code, base, final | estimates, test_windows * WINDOW, like, generator
    )
    laplacian = _laplacian(code, base, final).expand(len(like), -1, -1)
    shape, square = bold.shape[:-2], (*bold.shape[:-2], *base.shape)
    return PublishedFit(
        estimates={name: value.reshape(shape) for name, value in estimates.items()},
        history=pd.DataFrame(
            {name: values.flatten().cpu() for name, values in columns.items()}
        ),
        training_fc=fc(trained).reshape(square),
        training_fc_r=torch.stack(fc_r, -1).reshape(*shape, epochs),
        free_running_fc=fc(run).reshape(square),
        free_running_fc_r=similarity(fc(run), fc(recorded)).reshape(shape),
        weights=(
            laplacian - torch.diag_embed(laplacian.diagonal(dim1=-2, dim2=-1))
        ).reshape(square),
    )


def published_model(
    weights: Float[Tensor, "region region"],
    parameters: Published,
    volumes: int,
    *,
    variant: str = "A",
    batch: tuple[int, ...] = (),
    seed: int = 0,
) -> Float[Tensor, "*batch region time"]:
    """BOLD of the published model with fixed parameters, after two windows of warming
    up (notebook 03a)."""
    code, n = _code(variant), len(weights)
    check_weights(weights, n)
    if volumes < 1:
        raise InputError(
            f"A simulation needs at least one volume; came {volumes}. Ask for more."
        )
    like = weights.new_empty(math.prod(batch), n)
    base, generator = (
        prepared(weights),
        torch.Generator(weights.device).manual_seed(seed),
    )
    run = _free_running(
        code, base, _start(code, parameters, like), volumes, like, generator
    )
    return run.reshape(*batch, n, volumes)


def firing(x: Tensor, a: Tensor, b: Tensor, d: Tensor) -> Tensor:
    """R(x), equation 6, as guarded in the code: positive, with a kink at a x = b, and
    1/d there only nearly."""
    u = a * x - b
    return (1e-5 + u.abs()) / (1e-5 * d + (1 - torch.exp(-d * u)).abs())


def _local(p: Values) -> Values:
    """Everything a step needs, shaped to meet the states: made once a window, as it
    costs as much as a step."""
    k = {
        name: (FLOOR + p[name].relu()).unsqueeze(-1)
        for name in ("g_EE", "g_IE", "g_EI", "std_out")
    }
    k |= {
        "g": p["g"].unsqueeze(-1),
        "to_E": p["I_0"].unsqueeze(-1),
        "to_I": 0.7 * p["I_0"].unsqueeze(-1),
    }
    k["noise"] = math.sqrt(DT) * (0.02 + p["std_in"].relu()).unsqueeze(-1)
    pairs: dict[str, tuple[float, ...]] = {
        "gamma": (0.641e-3, 1e-3),
        "decay": (1 / 100, 1 / 10),
        "open": (1.0, 0.0),
    }
    pairs |= {
        "a": (310.0, 615.0),
        "b": (125.0, 177.0),
        "d": (0.16, 0.087),
        "rest": (0.0, 1.0, 1.0, 1.0),
    }
    return k | {
        name: p["g"].new_tensor(pair).reshape(-1, 1, 1, 1)
        for name, pair in pairs.items()
    }


def _neurons(
    code: _Code, k: Values, s: Tensor, received: Tensor, noise: Tensor
) -> Tensor:
    """An Euler-Maruyama step of E and I, equations 4-13, as (state, step, fit, region);
    received: Σ_j L_ij E_j."""
    E, I = s
    to_E = k["to_E"] + k["g_EE"] * E + k["g"] * received - k["g_IE"] * I
    current = code.bound(torch.stack([to_E, k["to_I"] + k["g_EI"] * E - I]).relu())
    growth = k["gamma"] * (1 - k["open"] * s) * firing(current, k["a"], k["b"], k["d"])
    return torch.tanh(
        code.offset + (s + DT * (growth - k["decay"] * s) + k["noise"] * noise).relu()
    )


def _blood(code: _Code, k: Values, h: Tensor, E: Tensor) -> Tensor:
    """One Euler step of the Balloon-Windkessel states x, f, v, q, equations 14-17."""
    x, f, v, q = h
    outflow = v ** (1 / 0.32)
    extracted = f * (1 - torch.exp(math.log(1 - 0.34) / f)) / 0.34
    drift = [
        E - x / 0.65 - (f - 1) / 0.41,
        x,
        (f - outflow) / 0.98,
        (extracted - q * outflow / v) / 0.98,
    ]
    return k["rest"] + code.bound(h + DT * torch.stack(drift) - k["rest"])


def _bold(k: Values, h: Tensor, noise: Tensor) -> Float[Tensor, "fit region time"]:
    """Equation 18, of the states at the volumes."""
    _, _, v, q = h
    signal = 100 * 0.02 / 0.34 * (2.38 * (1 - q) + 2.0 * (1 - q / v) + 0.48 * (1 - v))
    return (signal + k["std_out"] * noise).movedim(0, -1)


def prepared(weights: Float[Tensor, "region region"]) -> Float[Tensor, "region region"]:
    """Zero diagonal, symmetric, log1p, Frobenius norm 1: what every notebook does to
    tract counts."""
    weights = torch.log1p(_symmetric(weights)).fill_diagonal_(0.0)
    return weights / weights.norm()


def _laplacian(code: _Code, base: Tensor, p: Values) -> Tensor:
    """Negative Laplacian C − diag(Σ_j C_ij), whose rows sum to zero; one a fit if the
    gains w are trained."""
    weights = code.weigh(base, p.get("w", torch.zeros_like(base)))
    weights = weights / torch.linalg.matrix_norm(weights, keepdim=True)
    return weights - torch.diag_embed(weights.sum(-1))


def _received(
    laplacian: Tensor, E: Float[Tensor, "step fit region"]
) -> Float[Tensor, "step fit region"]:
    return (
        E @ laplacian
        if laplacian.ndim == 2
        else (E.transpose(0, 1) @ laplacian).transpose(0, 1)
    )


def bifurcation_term(p: Values) -> Float[Tensor, "*fit"]:
    """5 (A g_IE² − B g_IE + C − g_EI)²: the "bifurcation constraint", a parabola typed
    in by hand and trained along."""
    A, B, C, g_IE, g_EI = (
        FLOOR + p[name].relu() for name in ("A", "B", "C", "g_IE", "g_EI")
    )
    return 5 * (A * g_IE**2 - B * g_IE + C - g_EI) ** 2


def entropy_term(neural: Float[Tensor, "2 step fit region"]) -> Float[Tensor, "*fit"]:
    """0.1 times the mean of E ln E + (1 − E) ln(1 − E) and half the same of I: entropy
    is made large."""
    E, I = neural * neural.log() + (1 - neural) * (1 - neural).log()
    return 0.1 * (E + 0.5 * I).mean((0, 2))


def _penalties_a(p: Values, prior: Priors, neural: Tensor, blood: Tensor) -> Values:
    terms = {"bifurcation": bifurcation_term(p), "entropy": entropy_term(neural)}
    for name in prior:
        precision = FLOOR + p[f"{name}_precision"].relu()
        # Plus ln v as published; a Gaussian density has minus. So the prior fades while
        # it is trained.
        terms[f"prior_{name}"] = (
            precision * (p[name].relu() - p[f"{name}_mean"].relu()) ** 2
            + precision.log()
        )
    return terms


def _penalties_b(p: Values, prior: Priors, neural: Tensor, blood: Tensor) -> Values:
    values = dict(E=neural[0], I=neural[1], f=blood[1], v=blood[2]) | {
        name: p[name][None, :, None] for name in prior
    }
    terms = {}
    for name, value in values.items():
        mean, precision = p[f"{name}_mean"].unsqueeze(-1), p[f"{name}_precision"]
        terms[f"prior_{name}"] = (
            precision * (value - mean).square().mean((0, 2)) - precision.log()
        )
    return terms


def _named(prior: Priors) -> dict[str, float]:
    return {
        f"{n}_{k}": v
        for n, pair in prior.items()
        for k, v in zip(("mean", "precision"), pair, strict=True)
    }


def _symmetric(weights: Tensor) -> Tensor:
    return (weights + weights.mT) / 2


@dataclass(frozen=True, eq=False)
class _Code:
    """Variant A, and the names of what another may have otherwise; trained: beside what
    the priors are about."""

    start: Published = Published()
    steps: int = 14  # 0.75 // 0.05: the floor of a float
    rate: float = 0.01
    averaged: int = 100
    bound: Callable[[Tensor], Tensor] = torch.tanh
    offset: float = 1e-5
    weigh: Callable[[Tensor, Tensor], Tensor] = lambda base, w: _symmetric(
        (1 + torch.tanh(w)) * base
    )
    penalties: Callable[[Values, Priors, Tensor, Tensor], Values] = _penalties_a
    trained: tuple[str, ...] = (*GAINS, "std_in", "std_out")
    hyper: Mapping[str, float] = field(
        default_factory=lambda: {"A": 0.5, "B": 20.0, "C": 10.0}
    )


B_CODE = _Code(
    start=TWO_PARAMETERS,
    steps=15,
    rate=0.001,
    averaged=20,
    bound=lambda x: x,
    offset=0.0,
    weigh=lambda base, w: torch.log1p(
        _symmetric(torch.exp(w) * base)
    ),  # the second log1p, as published
    penalties=_penalties_b,
    trained=(),
    hyper=_named(
        {"E": (0.6, 2500.0), "I": (0.3, 2500.0), "f": (1.0, 100.0), "v": (1.0, 100.0)}
    ),
)
CODES = {"A": _Code(), "B": B_CODE}


def _train(
    code: _Code,
    base: Tensor,
    recorded: Tensor,
    free_weights: bool,
    epochs: Iterable[int],
    generator: torch.Generator,
) -> tuple[Tensor, list[Tensor], list[Values], Values]:
    """BOLD of the last epoch, r of every epoch, terms and values after every update,
    and the last values."""
    like, target = recorded[..., 0], fc(recorded)
    p = _start(code, code.start, like)
    p |= (
        {"w": like.new_full((*like.shape, like.shape[-1]), 0.05)}
        if free_weights
        else {}
    )
    names = {
        *code.trained,
        *code.start.prior,
        *code.hyper,
        *_named(code.start.prior),
        "w",
    }
    free = {name: value.requires_grad_() for name, value in p.items() if name in names}
    optimiser = torch.optim.Adam(free.values(), lr=code.rate, eps=1e-7)
    state, fit, fc_r, history = (
        _initial(like, generator),
        torch.arange(len(like), device=like.device),
        [],
        [],
    )
    for epoch in epochs:
        outputs = []
        for window, piece in enumerate(recorded.split(WINDOW, -1)):
            noise = _noise(code, like, generator)
            path = _run(code, _local(p), _laplacian(code, base, p), state, noise[0])
            state = path[0][:, -1:], path[1][:, -1:]
            bold, terms = _descend(code, base, p, free, path, noise, piece)
            optimiser.step()
            place = {
                "fit": fit,
                "epoch": torch.full_like(fit, epoch),
                "window": torch.full_like(fit, window),
            }
            history.append(
                place
                | terms
                | {name: p[name].detach().clone() for name in p if name != "w"}
            )
            outputs.append(bold)
        simulated = torch.cat(outputs, -1)[..., DROPPED:]
        fc_r.append(similarity(fc(simulated), target))
    return simulated, fc_r, history, {name: value.detach() for name, value in p.items()}


def _run(
    code: _Code, k: Values, laplacian: Tensor, state: _Path, noise: Tensor
) -> _Path:
    """All states of a window, the first included."""
    with torch.no_grad():
        s, h = [state[0]], [state[1]]
        for kick in noise.split(1, 1):
            h.append(_blood(code, k, h[-1], s[-1][0]))
            s.append(_neurons(code, k, s[-1], _received(laplacian, s[-1][0]), kick))
    return torch.cat(s, 1), torch.cat(h, 1)


def _descend(
    code: _Code,
    base: Tensor,
    p: Values,
    free: Values,
    path: _Path,
    noise: _Path,
    piece: Tensor,
) -> tuple[Tensor, Values]:
    """Leave a window's gradient in `grad`. Returns BOLD and the loss and its terms, one
    a fit.

    Backpropagation through the unrolled steps by its adjoint: given the states, the
    Jacobians of all steps are computed at once, and what remains in sequence is a small
    product a step. The sum of the losses keeps the fits independent.
    """
    neural, blood = (states.requires_grad_() for states in path)
    k, laplacian, volumes = (
        _local(p),
        _laplacian(code, base, p),
        blood[:, code.steps :: code.steps],
    )
    bold = _bold(k, volumes, noise[1])
    terms = {"fc": -torch.log(0.5 + 0.5 * similarity(fc(bold), fc(piece)))}
    terms |= code.penalties(p, code.start.prior, neural[:, 1:], volumes)
    loss = torch.stack(list(terms.values())).sum(0)
    by_s, by_h, *direct = _grad(loss.sum(), [neural, blood, *free.values()])
    s, h = (states[:, :-1].detach().requires_grad_() for states in path)
    E = s[0].detach().requires_grad_()
    _, by_E = _adjoint(_blood(code, k, h, E), h, E, by_h, lambda back: back[:-1])
    by_s[0, :-1] += by_E
    received = _received(laplacian, E)
    stepped = _neurons(code, k, s, received, noise[0])
    own, fixed = k["open"][:, 0], laplacian.detach()  # of the two states, E receives
    adjoint, _ = _adjoint(
        stepped,
        s,
        received,
        by_s,
        lambda back: back[:-1] + own * _received(fixed, back[-1:]),
    )
    through = _grad((adjoint * stepped).sum(), list(free.values()))
    for value, first, second in zip(free.values(), direct, through, strict=True):
        value.grad = first + second
    return bold.detach(), {
        name: term.detach() for name, term in ({"loss": loss} | terms).items()
    }


def _adjoint(
    stepped: Tensor, states: Tensor, other: Tensor, direct: Tensor, spread: Callable
) -> _Path:
    """Derivative of the loss by every step's result, and by `other`, an input of the
    same region and step."""
    rows = [_grad(new.sum(), [states, other]) for new in stepped]
    slopes = torch.stack(
        [torch.cat([row, last[None]]) for row, last in rows]
    )  # (out, in, step, fit, region)
    adjoint = [
        direct[:, -1]
        # spread: from derivatives by a step's own inputs to those by all states before
        # it
    ]
    for slope, own in zip(
        reversed(slopes.unbind(2)[1:]), reversed(direct.unbind(1)[1:-1]), strict=True
    ):
        adjoint.append(own + spread((slope * adjoint[-1].unsqueeze(1)).sum(0)))
    along = torch.stack(adjoint[::-1], 1)
    return along, (slopes[:, -1] * along).sum(0)


def _initial(like: Tensor, generator: torch.Generator) -> _Path:
    drawn = 0.45 * torch.rand(
        6, 1, *like.shape, generator=generator, dtype=like.dtype, device=like.device
    )
    return drawn[:2], drawn[2:] + like.new_tensor([0.0, 1.0, 1.0, 1.0]).reshape(
        4, 1, 1, 1
    )


def _noise(code: _Code, like: Tensor, generator: torch.Generator) -> _Path:
    """Standard normal numbers for a window: of the neurons at every step, of the
    scanner at every volume."""
    drawn = partial(
        torch.randn, generator=generator, dtype=like.dtype, device=like.device
    )
    return drawn(2, code.steps * WINDOW, *like.shape), drawn(WINDOW, *like.shape)


def _free_running(
    code: _Code,
    base: Tensor,
    p: Values,
    volumes: int,
    like: Tensor,
    generator: torch.Generator,
) -> Float[Tensor, "fit region time"]:
    state, k, laplacian, outputs = (
        _initial(like, generator),
        _local(p),
        _laplacian(code, base, p),
        [],
    )
    for _ in range(2 + math.ceil(volumes / WINDOW)):
        noise = _noise(code, like, generator)
        s, h = _run(code, k, laplacian, state, noise[0])
        state = s[:, -1:], h[:, -1:]
        outputs.append(_bold(k, h[:, code.steps :: code.steps], noise[1]))
    return torch.cat(outputs[2:], -1)[..., :volumes]


def _start(code: _Code, begin: Published, like: Tensor) -> Values:
    numbers = (
        {n: value for n, value in vars(begin).items() if n != "prior"}
        | dict(code.hyper)
        | _named(begin.prior)
    )
    return {
        name: torch.as_tensor(value).to(like).expand(len(like)).clone()
        for name, value in numbers.items()
    }


def _code(variant: str) -> _Code:
    if variant not in CODES:
        raise InputError(
            f"The published code has the variants {', '.join(CODES)}; came "
            f"{variant!r}. Choose one."
        )
    return CODES[variant]


def _checked(
    weights: Tensor, bold: Tensor, epochs: int
) -> Float[Tensor, "fit region time"]:
    """Recordings in one batch dimension, cut to whole windows."""
    n, windows = len(weights), bold.shape[-1] // WINDOW
    check_weights(weights, n)
    if bold.ndim < 2 or bold.shape[-2] != n or windows < 1 or epochs < 1:
        raise InputError(
            f"A published fit needs bold (…, region, time) of {n} regions and {WINDOW} "
            "volumes or more, and an epoch; "
            f"came bold of shape {tuple(bold.shape)} and {epochs} epochs."
        )
    pieces = bold[..., : windows * WINDOW].reshape(-1, n, windows, WINDOW)
    if not (pieces.std(-1) > 0).all():
        raise InputError(
            "Expected a finite signal that varies in every region and window of 20 "
            "volumes; repair bold."
        )
    return pieces.flatten(-2)
