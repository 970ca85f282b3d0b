"""Noise that depends on where and when it is drawn, not on what was drawn before: a
counter-based generator."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

MASK = 0xFFFFFFFF
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
STEPS = 4
"""Steps that share one call of the generator: it gives four numbers, and each step
takes one."""

Words = tuple[Tensor, Tensor, Tensor, Tensor]
"""Four 32-bit words, kept in int64 tensors."""


def philox(counter: Words, key: tuple[int, int]) -> Words:
    """Philox4x32-10 of Salmon et al. 2011, doi:10.1145/2063384.2063405."""
    words = counter
    for _ in range(ROUNDS):
        words = _philox_round(words, key)
        key = ((key[0] + WEYL[0]) & MASK, (key[1] + WEYL[1]) & MASK)
    return words


def _philox_round(words: Words, key: tuple[int, int]) -> Words:
    # Products wrap modulo 2^64, which keeps the bits we need.
    first = MULTIPLIERS[0] * words[0]
    second = MULTIPLIERS[1] * words[2]
    return (
        _high(second) ^ words[1] ^ key[0],
        second & MASK,
        _high(first) ^ words[3] ^ key[1],
        first & MASK,
    )


def _high(product: Tensor) -> Tensor:
    """The upper 32 bits of a 64-bit product."""
    # The shift of a signed integer copies its sign; the mask takes that off.
    return (product >> 32) & MASK


def key_of(seed: int) -> tuple[int, int]:
    """The generator's two key words: the low and the high half of a 64-bit seed."""
    return seed & MASK, (seed >> 32) & MASK


def normals(words: Words, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Four standard normal numbers from four 32-bit words (Box-Muller, two at a
    time)."""
    return (*_pair(words[0], words[1], dtype), *_pair(words[2], words[3], dtype))


def _pair(
    for_radius: Tensor, for_angle: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    # The middle of each of 2^32 intervals: never 0, whose logarithm is infinite.
    uniform = for_radius.to(dtype) * 2.0**-32 + 2.0**-33
    radius = torch.sqrt(-2 * torch.log(uniform))
    # The same word as a signed integer is an angle between -π and π.
    signed = torch.where(for_angle >= 2**31, for_angle - 2**32, for_angle)
    angle = math.pi * (signed.to(dtype) * 2.0**-31)
    return radius * torch.cos(angle), radius * torch.sin(angle)


def standard_normal(
    seed: int, states: int, like: Tensor, step: int
) -> Iterator[Tensor]:
    """Standard normal numbers (state, *batch, region) for `step`, `step + 1`, …

    like: (*batch, region); gives shape, dtype and device
    A number depends on (seed, simulation, step, state, region) only: the counter is
    (region, step // 4, simulation, state) and each of the four numbers of a call
    belongs to one step. `simulation` is the index in the flattened batch.
    """
    key = key_of(seed)
    # Several calls at once, as far as memory is not strained.
    calls = max(1, min(32, 2**18 // (states * like.numel())))
    shape = (calls, states, *like.shape)
    region, call, simulation, state = _counters(shape, like.device)
    quarter, offset = divmod(step, STEPS)
    while True:
        words = philox((region, call + quarter, simulation, state), key)
        numbers = torch.stack(normals(words, like.dtype), 1)
        yield from numbers.flatten(0, 1)[offset:]
        quarter += calls
        # Only the first call may begin in the middle of its four steps.
        offset = 0


def _counters(shape: tuple[int, ...], device: torch.device) -> Words:
    """Index of region, call, simulation and state at every place of an array (call,
    state, *batch, region)."""
    calls, states, *batch, regions = shape
    call = torch.arange(calls, device=device)
    state = torch.arange(states, device=device)
    simulation = torch.arange(math.prod(batch), device=device)
    region = torch.arange(regions, device=device)
    # Each index along its own axis, the same along all others.
    return (
        region.expand(shape),
        call.reshape(-1, *[1] * (len(shape) - 1)).expand(shape),
        simulation.reshape(*batch, 1).expand(shape),
        state.reshape(-1, *[1] * (len(shape) - 2)).expand(shape),
    )
