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


def philox(
    counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]
) -> tuple[Tensor, ...]:
    """Philox4x32-10 of Salmon et al. 2011, doi:10.1145/2063384.2063405; 32-bit words
    kept in int64 tensors."""
    a, b, c, d = counter
    k_0, k_1 = key
    for _ in range(ROUNDS):
        first, second = (
            MULTIPLIERS[0] * a,
            MULTIPLIERS[1] * c,
        )  # wraps modulo 2^64, which keeps the bits we need
        a, b, c, d = (
            ((second >> 32) & MASK) ^ b ^ k_0,
            second & MASK,
            ((first >> 32) & MASK) ^ d ^ k_1,
            first & MASK,
        )
        k_0, k_1 = (k_0 + WEYL[0]) & MASK, (k_1 + WEYL[1]) & MASK
    return a, b, c, d


def key_of(seed: int) -> tuple[int, int]:
    """The generator's two key words: the low and the high half of a 64-bit seed."""
    return seed & MASK, (seed >> 32) & MASK


def normals(words: tuple[Tensor, ...], dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Four standard normal numbers from four 32-bit words (Box-Muller, two at a
    time)."""
    return (*_pair(words[0], words[1], dtype), *_pair(words[2], words[3], dtype))


def _pair(
    for_radius: Tensor, for_angle: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    uniform = for_radius.to(dtype) * 2.0**-32 + 2.0**-33  # never 0
    signed = torch.where(for_angle >= 2**31, for_angle - 2**32, for_angle)
    radius, angle = (
        torch.sqrt(-2 * torch.log(uniform)),
        math.pi * (signed.to(dtype) * 2.0**-31),
    )
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
    together = max(1, min(32, 2**18 // (states * like.numel())))
    shape, device = (together, states, *like.shape), like.device
    region = torch.arange(like.shape[-1], device=device).expand(shape)
    simulation = (
        torch.arange(like[..., 0].numel(), device=device)
        .reshape(*like.shape[:-1], 1)
        .expand(shape)
    )
    state = (
        torch.arange(states, device=device).reshape(-1, *[1] * like.ndim).expand(shape)
    )
    ahead = (
        torch.arange(together, device=device)
        .reshape(-1, *[1] * (like.ndim + 1))
        .expand(shape)
    )
    quarter, offset = divmod(step, STEPS)
    while True:
        drawn = normals(
            philox((region, ahead + quarter, simulation, state), key_of(seed)),
            like.dtype,
        )
        yield from torch.stack(drawn, 1).flatten(0, 1)[offset:]
        quarter, offset = quarter + together, 0
