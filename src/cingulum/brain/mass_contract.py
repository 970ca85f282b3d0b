"""Whether a mass keeps to the shapes that it declares: checked before a brain runs, so
that a mistake in a new mass is named and not met as a shape error deep inside."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from cingulum.brain.brain import Brain
from cingulum.brain.dynamics import Dynamics, resting, zero_input
from cingulum.errors import InputError


def check_brain(brain: Brain, x: Float[Tensor, "state *batch region"]) -> None:
    """Refuse a brain whose mass breaks its own declarations; x: states it starts from.

    Raises InputError, as `check_mass`.
    """
    # Batched parameters widen states that start without a batch.
    batch = torch.broadcast_shapes(x.shape[1:-1], brain.batch)
    check_mass(brain.mass, x.new_empty((*batch, len(brain.regions))))


def check_mass(mass: Dynamics, like: Float[Tensor, "*batch region"]) -> None:
    """Refuse a mass whose `output`, `activity` or `drift` have other shapes than its
    `states` and `couplings` promise.

    like: gives shape, dtype and device of one state
    Raises InputError that names the mass, what was expected, what it returned, and what
        to change.
    """
    with torch.no_grad():
        x = resting(mass, like)
        # Outputs first: they show a wrong count of couplings, which makes `drift` fail
        # in less telling ways.
        _check_output(mass, x)
        _check_activity(mass, x)
        _check_drift(mass, x)


def _check_output(mass: Dynamics, x: Tensor) -> None:
    name = type(mass).__name__
    regional = tuple(x.shape[1:])
    expected = (mass.couplings, *regional)
    shape = tuple(mass.output(x).shape)
    if shape == expected:
        return
    raise InputError(
        f"{name}.output must return shape {expected}, as couplings = "
        f"{mass.couplings} declares; got {shape}. "
        + _output_advice(mass, shape, regional)
    )


def _output_advice(
    mass: Dynamics, shape: tuple[int, ...], regional: tuple[int, ...]
) -> str:
    if shape == regional and mass.couplings == 1:
        return (
            "The first axis counts the signals, also where there is one: return "
            "`x[:1]`, or `signal[None]`, and unpack the input in `drift` as "
            "`(received,) = u`."
        )
    if shape == regional:
        return (
            f"Return torch.stack of {mass.couplings} signals, or declare `couplings: "
            "ClassVar = 1` and return `signal[None]`."
        )
    if shape[1:] == regional:
        return (
            f"Declare `couplings: ClassVar = {shape[0]}`, or return the declared "
            "number of signals."
        )
    return (
        "Return one value per region (and batch member) for each signal, signals on "
        "the first axis."
    )


def _check_activity(mass: Dynamics, x: Tensor) -> None:
    expected = tuple(x.shape[1:])
    shape = tuple(mass.activity(x).shape)
    if shape != expected:
        raise InputError(
            f"{type(mass).__name__}.activity must return shape {expected}, one value "
            f"per region; got {shape}. Return a single signal, without a state axis."
        )


def _check_drift(mass: Dynamics, x: Tensor) -> None:
    rates = _rates(mass, x, zero_input(mass, x[0]))
    if rates.shape == x.shape:
        return
    names = ", ".join(state.name for state in mass.states)
    raise InputError(
        f"{type(mass).__name__}.drift must return shape {tuple(x.shape)}, the rate of "
        f"each of the declared states {names}; got {tuple(rates.shape)}. "
        + _drift_advice(mass, x, rates)
    )


def _rates(mass: Dynamics, x: Tensor, u: Tensor) -> Tensor:
    """The mass's drift, its errors said in words that name the mass."""
    # What a drift does with shapes that it does not expect is up to its author: any of
    # these errors may come of it.
    try:
        return mass.drift(x, u)
    except InputError:
        raise
    except (IndexError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"{type(mass).__name__}.drift failed on {len(mass.states)} states x of "
            f"shape {tuple(x.shape)} and an input u of shape {tuple(u.shape)}, as "
            f"couplings = {mass.couplings} declares: {error}. Make `drift` take as "
            f"many states and coupling inputs as the mass declares{_unpacking(mass)}, "
            "and give every parameter one value or one per region."
        ) from error


def _drift_advice(mass: Dynamics, x: Tensor, rates: Tensor) -> str:
    stack = f"Return torch.stack of {len(mass.states)} rates"
    if rates.shape[1:] == x.shape[1:]:
        return f"{stack}, or declare {len(rates)} states."
    return (
        f"{stack}, one value per region; the first axis of the input u counts its "
        f"{mass.couplings} signal(s){_unpacking(mass)}."
    )


def _unpacking(mass: Dynamics) -> str:
    """How to take the input apart where it is easy to miss that it has to be."""
    return " (one: `(received,) = u`)" if mass.couplings == 1 else ""
