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
        key = _next_key(key)
    return words


def _next_key(key: tuple[int, int]) -> tuple[int, int]:
    """The key of the following round."""
    low, high = key
    return (low + WEYL[0]) & MASK, (high + WEYL[1]) & MASK


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


def philox_key(seed: int) -> tuple[int, int]:
    """The generator's two key words: the low and the high half of a 64-bit seed."""
    return seed & MASK, (seed >> 32) & MASK


def normals(words: Words, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Four standard normal numbers from four 32-bit words (Box-Muller, two at a
    time)."""
    return (*_pair(words[0], words[1], dtype), *_pair(words[2], words[3], dtype))


def _pair(
    for_radius: Tensor, for_angle: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    radius = torch.sqrt(-2 * torch.log(_uniform(for_radius, dtype)))
    angle = _angle(for_angle, dtype)
    return radius * torch.cos(angle), radius * torch.sin(angle)


def _uniform(word: Tensor, dtype: torch.dtype) -> Tensor:
    # The middle of each of 2^32 intervals: never 0, whose logarithm is infinite.
    return word.to(dtype) * 2.0**-32 + 2.0**-33


def _angle(word: Tensor, dtype: torch.dtype) -> Tensor:
    """An angle between −π and π: the word read as a signed integer."""
    signed = torch.where(word >= 2**31, word - 2**32, word)
    return math.pi * (signed.to(dtype) * 2.0**-31)


def standard_normal(
    seed: int, states: int, like: Tensor, step: int, first: int = 0
) -> Iterator[Tensor]:
    """Standard normal numbers (state, *batch, region) for `step`, `step + 1`, …

    like: (*batch, region); gives shape, dtype and device
    A number depends on (seed, simulation, step, state, region) only: the counter is
    (region, step // 4, simulation, state) and each of the four numbers of a call
    belongs to one step. `simulation` is the index in the flattened batch, counted from
    `first`.
    """
    key = philox_key(seed)
    calls = _calls_at_once(states * like.numel())
    shape = (calls, states, *like.shape)
    region, call, simulation, state = _counters(shape, like.device)
    simulation = simulation + first
    quarter, offset = divmod(step, STEPS)
    while True:
        words = philox((region, call + quarter, simulation, state), key)
        numbers = torch.stack(normals(words, like.dtype), 1)
        yield from numbers.flatten(0, 1)[offset:]
        quarter += calls
        # Only the first call may begin in the middle of its four steps.
        offset = 0


def _calls_at_once(numbers: int) -> int:
    """Calls of the generator that are done together, as far as memory is not
    strained."""
    return max(1, min(32, 2**18 // numbers))


def _counters(shape: tuple[int, ...], device: torch.device) -> Words:
    """Index of region, call, simulation and state at every place of an array (call,
    state, *batch, region)."""
    batch = shape[2:-1]
    simulation = torch.arange(math.prod(batch), device=device)
    return (
        _index(shape, len(shape) - 1, device),
        _index(shape, 0, device),
        simulation.reshape(*batch, 1).expand(shape),
        _index(shape, 1, device),
    )


def _index(shape: tuple[int, ...], axis: int, device: torch.device) -> Tensor:
    """The index along one axis, the same along all others."""
    alone = [1] * len(shape)
    alone[axis] = shape[axis]
    return torch.arange(shape[axis], device=device).reshape(alone).expand(shape)
