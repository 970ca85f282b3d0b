"""The functions of mathematics that hardware does not have, for whole vectors: exp,
expm1, log, log1p, sin and cos.

Each reduces its argument to a small interval, with constants in several parts (Cody &
Waite, Software Manual for the Elementary Functions, 1980), and ends in a polynomial.
Nothing branches: special values are chosen lane by lane, and comparisons with NaN are
false, so NaN goes through.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from math import factorial

from cingulum.simulation.compiler.ir import Bits, Vector


@dataclass(frozen=True)
class FloatFormat:
    """Constants of a floating-point format.

    mantissa: stored bits of it; bias: of the exponent
    magic: 1.5 · 2^mantissa; adding it leaves a whole number in the lowest bits
    exp_high, exp_low: beyond these, exp is infinite or 0
    ln2_high, ln2_low: ln 2 in two parts; k · ln2_high is exact for every exponent k
    exp_terms, atanh_terms, circle_terms: of the polynomials, enough for the last bit
    half_pi: π/2 in three parts, of which the first two have exact small multiples
    """

    mantissa: int
    bias: int
    magic: float
    exp_high: float
    exp_low: float
    ln2_high: float
    ln2_low: float
    exp_terms: int
    atanh_terms: int
    circle_terms: int
    half_pi: tuple[float, float, float]

    @property
    def magic_bits(self) -> int:
        """The bits of `magic`, as a whole number."""
        exponent = (self.mantissa + self.bias) << self.mantissa
        return exponent | (1 << (self.mantissa - 1))


FLOAT32 = FloatFormat(
    mantissa=23,
    bias=127,
    magic=1.5 * 2**23,
    exp_high=89.0,
    exp_low=-104.0,
    ln2_high=0.693145751953125,
    ln2_low=1.42860677e-6,
    exp_terms=8,
    atanh_terms=5,
    circle_terms=6,
    half_pi=(1.5703125, 4.837512969970703125e-4, 7.54978995489188216e-8),
)

FLOAT64 = FloatFormat(
    mantissa=52,
    bias=1023,
    magic=1.5 * 2**52,
    exp_high=710.0,
    exp_low=-746.0,
    ln2_high=6.93147180369123816490e-01,
    ln2_low=1.90821492927058770002e-10,
    exp_terms=14,
    atanh_terms=11,
    circle_terms=10,
    half_pi=(
        1.57079632673412561417,
        6.07710050630396597660e-11,
        2.02226624879595063154e-21,
    ),
)


def format_of(x: Vector) -> FloatFormat:
    return FLOAT32 if x.code.number_type.bits == 32 else FLOAT64


def horner(x: Vector, coefficients: list[float]) -> Vector:
    """A polynomial in x; coefficients with the highest power first."""
    value = x.code.constant(coefficients[0])
    for coefficient in coefficients[1:]:
        value = value * x + coefficient
    return value


def nearest_whole(x: Vector, scale: float) -> tuple[Vector, Bits]:
    """round(x · scale), as a number and as whole bits."""
    # SSE2 has no rounding instruction; adding the magic number rounds everywhere.
    form = format_of(x)
    shifted = x * scale + form.magic
    return shifted - form.magic, shifted.bits() - form.magic_bits


def _power_of_two(exponent: Bits, form: FloatFormat) -> Vector:
    biased = exponent + form.bias
    return (biased << form.mantissa).as_numbers()


def _without_powers_of_two(x: Vector) -> tuple[Vector, Bits]:
    """x = k ln 2 + r with |r| ≤ ½ ln 2: r, and k as whole bits."""
    form = format_of(x)
    k, bits = nearest_whole(x, 1 / math.log(2))
    return x - k * form.ln2_high - k * form.ln2_low, bits


def _clamped(x: Vector, low: float, high: float) -> Vector:
    x = (x > high).choose(high, x)
    return (x < low).choose(low, x)


def exp(x: Vector) -> Vector:
    form = format_of(x)
    r, k = _without_powers_of_two(_clamped(x, form.exp_low, form.exp_high))
    powers = range(form.exp_terms - 1, -1, -1)
    series = horner(r, [1 / factorial(i) for i in powers])
    # 2^k in two halves, so that the largest and smallest numbers come out right.
    half = k.combine("ashr", 1)
    return series * _power_of_two(half, form) * _power_of_two(k - half, form)


def expm1(x: Vector) -> Vector:
    """exp(x) − 1 without cancellation near 0."""
    form = format_of(x)
    # Below −60 the result is −1 in both formats.
    r, k = _without_powers_of_two(_clamped(x, -60.0, form.exp_high))
    powers = range(form.exp_terms + 1, 0, -1)
    series = horner(r, [1 / factorial(i) for i in powers]) * r
    # 2^k (1 + series) − 1 = 2^b (2^a series + (2^a − 2^−b)) with a + b = k.
    half = k.combine("ashr", 1)
    other = k - half
    first = _power_of_two(half, form)
    second = _power_of_two(other, form)
    inverse = _power_of_two(-other, form)
    return (series * first + (first - inverse)) * second


def log_of_normal(x: Vector) -> Vector:
    """Logarithm of a positive normal number: k ln 2 + log m with √½ < m ≤ √2, and
    log m = 2 artanh((m − 1) / (m + 1))."""
    form = format_of(x)
    k, m = _exponent_and_mantissa(x)
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    powers = range(form.atanh_terms - 1, 0, -1)
    series = horner(z, [2 / (2 * i + 1) for i in powers])
    # Small parts are added first, so that their bits are not lost.
    twice = s + s
    value = series * z * s + twice
    value = k * form.ln2_low + value
    return k * form.ln2_high + value


def _exponent_and_mantissa(x: Vector) -> tuple[Vector, Vector]:
    """x = 2^k · m with √½ < m ≤ √2."""
    form = format_of(x)
    bits = x.bits()
    exponent = bits.combine("lshr", form.mantissa) - form.bias
    fraction = bits & ((1 << form.mantissa) - 1)
    m = (fraction | (form.bias << form.mantissa)).as_numbers()
    # Around 1, so that the series is shortest and log 1 is exactly 0.
    is_large = m > math.sqrt(2)
    m = is_large.choose(m * 0.5, m)
    # A conversion to numbers of 64 bits is no single instruction before AVX-512.
    k = (exponent + form.magic_bits).as_numbers() - form.magic
    return is_large.choose(k + 1.0, k), m


def log(x: Vector) -> Vector:
    form = format_of(x)
    # Subnormal numbers are scaled into the normal range first.
    is_small = x < 2.0 ** (1 - form.bias)
    shift = form.mantissa + 2
    value = log_of_normal(is_small.choose(x * 2.0**shift, x))
    value = value - is_small.choose(shift * math.log(2), 0.0)
    # Of 0, negative numbers, infinity and NaN; the bits above mean nothing for them.
    value = x.equals(0.0).choose(x.code.infinity(-1), value)
    value = (x < 0.0).choose(math.nan, value)
    value = x.equals(x.code.infinity(1)).choose(x, value)
    return x.is_nan().choose(x, value)


def log1p(x: Vector) -> Vector:
    """log(1 + x); the factor x / ((1 + x) − 1) takes the rounding of 1 + x back."""
    u = x + 1.0
    value = log(u) * x / (u - 1.0)
    # Where 1 + x rounds to 1, the factor is 0 / 0 and log1p is x.
    value = u.equals(1.0).choose(x, value)
    return x.equals(x.code.infinity(1)).choose(x, value)


def _near_zero(r: Vector) -> tuple[Vector, Vector]:
    """Sine and cosine of |r| ≤ π/4."""
    terms = format_of(r).circle_terms
    z = r * r
    odd = [(-1) ** i / factorial(2 * i + 1) for i in range(terms - 1, 0, -1)]
    even = [(-1) ** i / factorial(2 * i) for i in range(terms, -1, -1)]
    sine = horner(z, odd) * z * r + r
    return sine, horner(z, even)


def sine_and_cosine_turned(r: Vector, quarters: Bits) -> tuple[Vector, Vector]:
    """Sine and cosine of r plus whole quarter turns, for |r| ≤ π/4."""
    sine, cosine = _near_zero(r)
    # Every quarter turn exchanges sine and cosine.
    is_odd = (quarters & 1).is_nonzero()
    unsigned_sine = is_odd.choose(cosine, sine)
    unsigned_cosine = is_odd.choose(sine, cosine)
    # Bit 1 of the quarters says where the sign turns; it moves to the sign's place.
    to_sign = quarters.width - 2
    sine_sign = (quarters & 2) << to_sign
    cosine_sign = ((quarters + 1) & 2) << to_sign
    return _signed(unsigned_sine, sine_sign), _signed(unsigned_cosine, cosine_sign)


def _signed(value: Vector, sign: Bits) -> Vector:
    return (value.bits() ^ sign).as_numbers()


def sine_and_cosine(x: Vector) -> tuple[Vector, Vector]:
    quarters, bits = nearest_whole(x, 2 / math.pi)
    # π/2 in parts: the difference keeps bits that one rounded π/2 would lose.
    r = x
    for part in format_of(x).half_pi:
        r = r - quarters * part
    return sine_and_cosine_turned(r, bits)


LIBRARY_FUNCTIONS = {
    "fmod": 2,
    "hypot": 2,
    "atan2": 2,
    "atan": 1,
    "asin": 1,
    "acos": 1,
    "asinh": 1,
    "acosh": 1,
    "atanh": 1,
    "erf": 1,
    "erfc": 1,
    "lgamma": 1,
}
"""Functions of the C library, by how many numbers they take: those that few masses
need."""


def _library_function(name: str) -> Callable[..., Vector]:
    return lambda x, *others: x.from_library(name, *others)


FUNCTIONS: dict[str, Callable[..., Vector]] = {
    "exp": exp,
    "expm1": expm1,
    "log": log,
    "log1p": log1p,
    "sin": lambda x: sine_and_cosine(x)[0],
    "cos": lambda x: sine_and_cosine(x)[1],
    "sqrt": lambda x: x.intrinsic("sqrt"),
    "abs": lambda x: x.intrinsic("fabs"),
    "rint": lambda x: x.intrinsic("rint"),
    "floor": lambda x: x.intrinsic("floor"),
    "ceil": lambda x: x.intrinsic("ceil"),
    "trunc": lambda x: x.intrinsic("trunc"),
    "float32": Vector.rounded_to_float32,
    **{name: _library_function(name) for name in LIBRARY_FUNCTIONS},
}
"""By their names in the small language."""
