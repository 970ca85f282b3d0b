"""The training scheme of Griffiths et al. 2022, doi:10.1101/2022.05.19.492664, re-run
for comparison: not for use.

What was published, with its own faults: those of the model (`griffiths2022_model`),
connectivity of 20 volumes as target, priors trained along. What it recovers does not
depend on the data (docs/decisions/009); the method we recommend is
`cingulum.inference.fitting`.

Departures: the original had no seed anywhere, here initial state and noise come from
one seeded `torch.Generator`; start values are given, not drawn around the prior;
gradients are computed by the adjoint of a window's steps instead of a tape (the same
numbers, sooner); the free run uses the point estimate; B's early stop, after an epoch
whose last window is worse than that of the epoch before, is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from cingulum.brain.connectome import check_weights
from cingulum.errors import InputError
from cingulum.inference.published.griffiths2022_model import (
    GAINS,
    WINDOW,
    Noise,
    Parameters,
    PublishedNetwork,
    PublishedParameters,
    States,
    StepConstants,
    Variant,
    blood_step,
    bold_signal,
    free_running_bold,
    initial_states,
    neural_step,
    normalised_counts,
    received_from,
    simulate_window,
    start_values,
    variant_named,
    window_noise,
)
from cingulum.measures import fc, similarity
from cingulum.progress import track

DROPPED = 10
"""Volumes at the start of an epoch that its connectivity leaves out."""

# The graph is kept because a window takes several gradients through the same constants.
_grad = partial(torch.autograd.grad, retain_graph=True, materialize_grads=True)


@dataclass(frozen=True, eq=False)
class PublishedFit:
    """What the published code reports after a fit.

    estimates: mean of the last updates (A: 100; B: 20)
    history: one row per window and fit: loss, its terms, and every trained number after
        the update
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


# Each option is set by its name, and has the name that it has in the published code or
# in `fit`.
def published_fit(  # noqa: PLR0913
    weights: Float[Tensor, "region region"],
    bold: Float[Tensor, "*batch region time"],
    *,
    variant: str = "A",
    start: PublishedParameters | None = None,
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
    free_weights: also train one gain per connection
    rate: of Adam; by default 0.01 (A) or 0.001 (B)

    Dtype follows `bold`; the original was float32. Volumes that do not fill a window
    are dropped. Raises InputError for an unknown variant, and for recordings that do
    not fit the connectome or fill no window.
    """
    recorded = _whole_windows(weights, bold, epochs)
    like = recorded[..., 0]
    # One generator for initial states, noise and the free run, drawn in this order.
    generator = torch.Generator(bold.device).manual_seed(seed)
    training = _Training.of(
        _adjusted(variant_named(variant), start, rate),
        normalised_counts(weights.to(like)),
        like,
        free_weights,
    )
    rounds = track(range(epochs), "published fit", show=show_progress)
    trained = _train(training, recorded, rounds, generator)
    final = trained.network(training)
    test_bold = free_running_bold(final, test_windows * WINDOW, like, generator)
    return _reported(trained, final, fc(test_bold), recorded, bold.shape[:-2])


def _adjusted(
    variant: Variant, start: PublishedParameters | None, rate: float | None
) -> Variant:
    return replace(variant, start=start or variant.start, rate=rate or variant.rate)


def _whole_windows(
    weights: Tensor, bold: Tensor, epochs: int
) -> Float[Tensor, "fit region time"]:
    """Recordings in one batch dimension, cut to whole windows."""
    n = len(weights)
    check_weights(weights, n)
    _check_recording(n, bold, epochs)
    windows = bold.shape[-1] // WINDOW
    pieces = bold[..., : windows * WINDOW].reshape(-1, n, windows, WINDOW)
    _check_varies(pieces)
    return pieces.flatten(-2)


def _check_recording(n: int, bold: Tensor, epochs: int) -> None:
    has_regions = bold.ndim >= 2 and bold.shape[-2] == n
    # Tested last, since a scalar has no time axis.
    if not has_regions or bold.shape[-1] < WINDOW or epochs < 1:
        raise _unusable(n, bold, epochs)


def _check_varies(pieces: Tensor) -> None:
    # "not >" instead of "≤", so that NaN is refused too.
    if not (pieces.std(-1) > 0).all():
        raise InputError(
            "Expected a finite signal that varies in every region and window of 20 "
            "volumes; repair bold."
        )


def _unusable(n: int, bold: Tensor, epochs: int) -> InputError:
    return InputError(
        f"A published fit needs bold (…, region, time) of {n} regions and {WINDOW} "
        "volumes or more, and an epoch; "
        f"got bold of shape {tuple(bold.shape)} and {epochs} epochs."
    )


@dataclass(frozen=True, eq=False)
class _Training:
    """A fit in progress: the network, those of its parameters that are trained (`free`,
    changed in place), and what changes them."""

    network: PublishedNetwork
    free: Parameters
    optimiser: torch.optim.Optimizer

    @classmethod
    def of(
        cls, variant: Variant, base: Tensor, like: Tensor, free_weights: bool
    ) -> _Training:
        parameters = start_values(variant, variant.start, like)
        if free_weights:
            # As published: a little above 0, where every gain is 1.
            parameters["w"] = like.new_full((*like.shape, like.shape[-1]), 0.05)
        free = _trainable(parameters, variant.trained_names)
        # eps as in the published code; torch's default is a tenth of it.
        adam = torch.optim.Adam(free.values(), lr=variant.rate, eps=1e-7)
        return cls(PublishedNetwork(variant, base, parameters), free, adam)

    @property
    def free_values(self) -> list[Tensor]:
        return list(self.free.values())

    def values(self) -> Parameters:
        """A copy of every parameter as it is now, gains of connections apart."""
        # Gains of connections are too many for a table.
        return {
            name: value.detach().clone()
            for name, value in self.network.parameters.items()
            if name != "w"
        }


def _trainable(parameters: Parameters, names: Collection[str]) -> Parameters:
    """The parameters that are trained; from now on, torch records their gradient."""
    trainable = {}
    for name, value in parameters.items():
        if name in names:
            trainable[name] = value.requires_grad_()
    return trainable


@dataclass(frozen=True, eq=False)
class _Trained:
    """What training leaves.

    bold: of the last epoch; fc_r: with the recorded FC, of every epoch
    history: loss, its terms and all parameters after every update, by column
    """

    bold: Float[Tensor, "fit region time"]
    fc_r: Float[Tensor, "fit epoch"]
    history: dict[str, Float[Tensor, "update fit"]]
    averaged: int

    @property
    def estimates(self) -> Parameters:
        means = {}
        for name in GAINS:
            means[name] = self.history[name][-self.averaged :].mean(0)
        return means

    def network(self, training: _Training) -> PublishedNetwork:
        """The network with the estimates in place of the last values of the gains."""
        final = _detached(training.network.parameters) | self.estimates
        return replace(training.network, parameters=final)


def _train(
    training: _Training,
    recorded: Float[Tensor, "fit region time"],
    epochs: Iterable[int],
    generator: torch.Generator,
) -> _Trained:
    target = fc(recorded)
    # States go on from window to window and from epoch to epoch.
    state = initial_states(recorded[..., 0], generator)
    fc_r = []
    history: list[Parameters] = []
    for epoch in epochs:
        updates = _epoch(training, state, recorded, generator)
        state = updates[-1].last
        bold = _epoch_bold(updates)
        fc_r.append(similarity(fc(bold), target))
        history += _history_rows(recorded, epoch, updates)
    averaged = training.network.variant.averaged
    return _Trained(bold, torch.stack(fc_r, -1), _columns(history), averaged)


def _epoch_bold(updates: Sequence[_Update]) -> Float[Tensor, "fit region time"]:
    """The BOLD of an epoch that its connectivity is computed from."""
    return torch.cat([update.bold for update in updates], -1)[..., DROPPED:]


def _history_rows(
    recorded: Tensor, epoch: int, updates: Sequence[_Update]
) -> Iterator[Parameters]:
    for window, update in enumerate(updates):
        position = _position(recorded, epoch, window)
        yield position | update.terms | update.values


def _epoch(
    training: _Training,
    state: States,
    recorded: Float[Tensor, "fit region time"],
    generator: torch.Generator,
) -> list[_Update]:
    """One update per window of the recording."""
    updates = []
    for window in recorded.split(WINDOW, -1):
        update = _update(training, state, window, generator)
        state = update.last
        updates.append(update)
    return updates


def _position(recorded: Tensor, epoch: int, window: int) -> Parameters:
    """Where in the history a row of every fit belongs."""
    fit = torch.arange(len(recorded), device=recorded.device)
    same = torch.ones_like(fit)
    return {"fit": fit, "epoch": epoch * same, "window": window * same}


def _columns(rows: list[Parameters]) -> Parameters:
    columns = {}
    for name in rows[0]:
        columns[name] = torch.stack([row[name] for row in rows])
    return columns


@dataclass(frozen=True, eq=False)
class _Update:
    """A window after which the parameters were changed.

    last: states it ended in; terms: of its loss; values: of the parameters afterwards
    """

    last: States
    bold: Float[Tensor, "fit region volume"]
    terms: Parameters
    values: Parameters


def _update(
    training: _Training,
    state: States,
    recorded: Float[Tensor, "fit region volume"],
    generator: torch.Generator,
) -> _Update:
    """Simulate a window, compare it with the recorded one, and take a step of Adam."""
    network = training.network
    noise = window_noise(network.variant, state.excitation[0], generator)
    path = simulate_window(
        network.variant, network.constants, network.laplacian, state, noise.neural
    )
    bold, terms = leave_gradient(network, training.free_values, path, noise, recorded)
    training.optimiser.step()
    return _Update(path.last, bold, terms, training.values())


def leave_gradient(
    network: PublishedNetwork,
    free: Sequence[Tensor],
    path: States,
    noise: Noise,
    recorded: Float[Tensor, "fit region volume"],
) -> tuple[Float[Tensor, "fit region volume"], Parameters]:
    """Leave a window's gradient in `grad` of the free values. Returns BOLD, and the
    loss and its terms, one number per fit.

    Backpropagation through the unrolled steps by its adjoint: given the states, the
    Jacobians of all steps are computed at once, and what remains in sequence is a small
    product per step. The sum of the losses keeps the fits independent.
    """
    constants = network.constants
    laplacian = network.laplacian
    states = States(path.neural.requires_grad_(), path.blood.requires_grad_())
    volumes = states.volumes(network.variant.steps)
    bold = bold_signal(constants, volumes, noise.scanner)
    terms = _loss_terms(network, states, bold, recorded)
    # "direct": by what enters the loss itself, scanner noise and priors.
    by_neural, by_blood, *direct = _grad(
        terms["loss"].sum(), [states.neural, states.blood, *free]
    )
    # The loss sees the blood, the blood sees E: its part comes first.
    before = states.before_last
    by_neural[0, :-1] += _by_excitation(network.variant, constants, before, by_blood)
    steps = _NeuralSteps(network.variant, constants, laplacian, noise.neural)
    through = steps.gradient(before.neural, by_neural, free)
    for value, first, second in zip(free, direct, through, strict=True):
        value.grad = first + second
    return bold.detach(), _detached(terms)


def _detached(values: Parameters) -> Parameters:
    return {name: value.detach() for name, value in values.items()}


def _loss_terms(
    network: PublishedNetwork, states: States, bold: Tensor, recorded: Tensor
) -> Parameters:
    """The loss, and the terms of which it is the sum."""
    r = similarity(fc(bold), fc(recorded))
    terms = {"fc": -torch.log(0.5 + 0.5 * r)} | _penalties(network, states)
    loss = torch.stack(list(terms.values())).sum(0)
    return {"loss": loss} | terms


def _penalties(network: PublishedNetwork, states: States) -> Parameters:
    variant = network.variant
    # The first state belongs to the window before.
    return variant.penalties(
        network.parameters,
        variant.start.prior,
        states.neural[:, 1:],
        states.volumes(variant.steps),
    )


def _by_excitation(
    variant: Variant,
    constants: StepConstants,
    before: States,
    by_blood: Float[Tensor, "4 step fit region"],
) -> Float[Tensor, "step fit region"]:
    """Derivative of the loss by E at every step, through the blood."""
    h = before.blood.detach().requires_grad_()
    E = before.excitation.detach().requires_grad_()
    jacobians = _jacobians(blood_step(variant, constants, h, E), h, E)
    adjoint = _adjoint(jacobians, by_blood, _of_own_states)
    return (jacobians[:, -1] * adjoint).sum(0)


def _of_own_states(
    by_inputs: Float[Tensor, "input fit region"],
) -> Float[Tensor, "state fit region"]:
    """Without the derivative by the input from outside, which comes last."""
    return by_inputs[:-1]


@dataclass(frozen=True, eq=False)
class _NeuralSteps:
    """All steps of a window's neurons, and what they depend on besides the states."""

    variant: Variant
    constants: StepConstants
    laplacian: Float[Tensor, "*fit region region"]
    noise: Float[Tensor, "2 step fit region"]

    def gradient(
        self,
        states: Float[Tensor, "2 step fit region"],
        by_states: Float[Tensor, "2 step fit region"],
        free: Sequence[Tensor],
    ) -> tuple[Tensor, ...]:
        """Derivative of the loss by the free values, through all steps, given those by
        the states."""
        s = states.detach().requires_grad_()
        # A leaf of its own: what is received is an input beside a region's own state.
        E = states[0].detach().requires_grad_()
        received = received_from(self.laplacian, E)
        stepped = neural_step(self.variant, self.constants, s, received, self.noise)
        jacobians = _jacobians(stepped, s, received)
        adjoint = _adjoint(jacobians, by_states, self._by_states_before)
        # The steps' own dependence on the free values, weighed by what each step owes.
        return _grad((adjoint * stepped).sum(), free)

    def _by_states_before(
        self, by_inputs: Float[Tensor, "3 fit region"]
    ) -> Float[Tensor, "2 fit region"]:
        """Derivatives by a step's states, from those by E, I and what is received."""
        # The Laplacian is symmetric: what is received passes back unchanged.
        passed_back = received_from(self.laplacian.detach(), by_inputs[-1:])
        # Of the two states, only E is sent to other regions.
        is_excitation = self.constants.recruited[:, 0]
        return by_inputs[:-1] + is_excitation * passed_back


def _jacobians(
    stepped: Float[Tensor, "state step fit region"],
    states: Float[Tensor, "state step fit region"],
    received: Float[Tensor, "step fit region"],
) -> Float[Tensor, "state input step fit region"]:
    """Derivatives of every step's result by its inputs, the states and last what is
    received. No region's result depends on another's inputs, so sums suffice."""
    rows = []
    for new in stepped:
        by_states, by_received = _grad(new.sum(), [states, received])
        rows.append(torch.cat([by_states, by_received[None]]))
    return torch.stack(rows)


def _adjoint(
    jacobians: Float[Tensor, "state input step fit region"],
    direct: Float[Tensor, "state step1 fit region"],
    by_states_before: Callable[[Tensor], Tensor],
) -> Float[Tensor, "state step fit region"]:
    """Derivative of the loss by every step's result.

    direct: what the loss owes to each state, the first included, directly
    by_states_before: from derivatives by a step's own inputs to those by all states
        before it
    """
    backwards = [direct[:, -1]]
    # The first state was not computed here and the last step is already there.
    slopes = reversed(jacobians.unbind(2)[1:])
    owed = reversed(direct.unbind(1)[1:-1])
    for slope, own in zip(slopes, owed, strict=True):
        by_inputs = (slope * backwards[-1].unsqueeze(1)).sum(0)
        backwards.append(own + by_states_before(by_inputs))
    return torch.stack(backwards[::-1], 1)


def _reported(
    trained: _Trained,
    final: PublishedNetwork,
    test_fc: Float[Tensor, "fit region region"],
    recorded: Float[Tensor, "fit region time"],
    batch: torch.Size,
) -> PublishedFit:
    """The results, in the batch dimensions of the recordings."""
    square = (*batch, *final.base.shape)
    # A single recording has no batch dimension: its estimates have none either.
    estimates = trained.estimates
    return PublishedFit(
        estimates={name: value.reshape(batch) for name, value in estimates.items()},
        history=_history_table(trained.history),
        training_fc=fc(trained.bold).reshape(square),
        training_fc_r=trained.fc_r.reshape(*batch, -1),
        free_running_fc=test_fc.reshape(square),
        free_running_fc_r=similarity(test_fc, fc(recorded)).reshape(batch),
        weights=_off_diagonal(final.laplacian, len(recorded)).reshape(square),
    )


def _history_table(columns: Parameters) -> pd.DataFrame:
    table = {}
    for name, values in columns.items():
        table[name] = values.flatten().cpu()
    return pd.DataFrame(table)


def _off_diagonal(
    laplacian: Float[Tensor, "*fit region region"], fits: int
) -> Float[Tensor, "fit region region"]:
    """The weights of which it is the Laplacian, one per fit."""
    diagonal = torch.diag_embed(laplacian.diagonal(dim1=-2, dim2=-1))
    return (laplacian - diagonal).expand(fits, -1, -1)
