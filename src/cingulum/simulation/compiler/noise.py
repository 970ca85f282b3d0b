"""Standard normal numbers inside the time loop: the stream of
`cingulum.simulation.noise`, four steps at a time, as LLVM IR."""

from __future__ import annotations

import math

from cingulum.simulation.compiler.ir import Bits, Code, Integer, Vector
from cingulum.simulation.compiler.layout import KernelSpec, table_arrays, table_sizes
from cingulum.simulation.compiler.mathematics import (
    log_of_normal,
    nearest_whole,
    sine_and_cosine_turned,
)
from cingulum.simulation.noise import MULTIPLIERS, ROUNDS, STEPS, WEYL

DRAW_SIZES = (
    "first",
    "noise_first",
    "simulations",
    "seed_low",
    "seed_high",
    "origin",
    "normals_step",
    "normals_simulation",
)

WORD = 2**32


def draw(spec: KernelSpec) -> str:
    """`draw`: the noise of `count` steps from step `from` of the run, for every
    simulation of the block."""
    code, shape = Code(spec.shape.number_type), spec.shape
    sizes = table_sizes(code, DRAW_SIZES)
    array = table_arrays(code, ("normals",))["normals"]
    key = sizes["seed_low"].word(), sizes["seed_high"].word()
    start = sizes["origin"] + code.argument("from")
    # A call of the generator serves four steps, which begin at a multiple of four.
    first_quarter = start >> 2
    last_quarter = (start + code.argument("count") + (STEPS - 1)) >> 2
    with (
        code.loop(0, sizes["simulations"]) as b,
        code.loop(first_quarter, last_quarter) as quarter,
        code.loop(0, shape.states) as state,
    ):
        steps = (quarter - first_quarter) * STEPS * sizes["normals_step"]
        row = steps + b * sizes["normals_simulation"] + state * shape.width
        simulation = sizes["first"] + sizes["noise_first"] + b
        with code.loop(0, shape.vectors) as i:
            lane = i * shape.number_type.lanes
            counter = (
                _regions(code, lane),
                _word(code, quarter),
                _word(code, simulation),
                _word(code, state),
            )
            for step, normals in enumerate(philox_normals(counter, key)):
                array.at(row, lane, sizes["normals_step"] * step).store(normals)
    return code.function("draw(ptr noalias %A, i64 %from, i64 %count)")


def _word(code: Code, value: Integer) -> Bits:
    return code.words_in_every_lane(value.word())


def _regions(code: Code, lane: Integer) -> Bits:
    """The numbers of the regions in a vector that begins at region `lane`."""
    numbers = ", ".join(f"i32 {i}" for i in range(code.number_type.lanes))
    return _word(code, lane) + Bits(code, f"<{numbers}>", 32)


def philox_normals(
    counter: tuple[Bits, Bits, Bits, Bits], key: tuple[str, str]
) -> list[Vector]:
    """Four vectors of standard normal numbers.

    Philox4x32-10 of Salmon et al. 2011, doi:10.1145/2063384.2063405, and Box-Muller.
    counter: four vectors of 32-bit words; key: two i32 values
    """
    a, b, c, d = counter
    code = a.code
    # Written out in full: the ten turns have no branch and no memory.
    low_key, high_key = key
    for turn in range(ROUNDS):
        if turn:
            low_key = _next_key(code, low_key, WEYL[0])
            high_key = _next_key(code, high_key, WEYL[1])
        high_a, low_a = _product(a, MULTIPLIERS[0])
        high_c, low_c = _product(c, MULTIPLIERS[1])
        mixed_a = high_c ^ b
        mixed_c = high_a ^ d
        a = mixed_a ^ code.words_in_every_lane(low_key)
        c = mixed_c ^ code.words_in_every_lane(high_key)
        # As in the paper: high words cross over, low words move on.
        b, d = low_c, low_a
    return [*_box_muller(a, b), *_box_muller(c, d)]


def _next_key(code: Code, key: str, step: int) -> str:
    # LLVM reads i32 constants as signed.
    return code.assign(f"add i32 {key}, {step - WORD}")


def _product(a: Bits, multiplier: int) -> tuple[Bits, Bits]:
    """The high and the low word of a · multiplier."""
    wide = a.resized("zext", 64).combine("mul nuw", multiplier)
    high = wide.combine("lshr", 32).resized("trunc", 32)
    return high, a * (multiplier - WORD)


def _box_muller(for_radius: Bits, for_angle: Bits) -> tuple[Vector, Vector]:
    # Half a step above 0, so that the logarithm is finite.
    uniform = for_radius.converted("uitofp") * 2.0**-32 + 2.0**-33
    radius = (log_of_normal(uniform) * -2.0).intrinsic("sqrt")
    # The angle in half turns, −1 to 1, whose quarter turns are exact.
    half_turns = for_angle.converted("sitofp") * 2.0**-31
    quarters, bits = nearest_whole(half_turns, 2.0)
    within_quarter = half_turns - quarters * 0.5
    sine, cosine = sine_and_cosine_turned(within_quarter * math.pi, bits)
    return radius * cosine, radius * sine
