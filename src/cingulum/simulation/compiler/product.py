"""Products with the connection weights as LLVM IR, in tiles of registers."""

from __future__ import annotations

from dataclasses import dataclass

from cingulum.simulation.compiler.ir import Code, Integer, Pointer, Variable, Vector
from cingulum.simulation.compiler.layout import KernelSpec

ARGUMENTS = (
    "i64 %m, i64 %inner, ptr %a, i64 %am, i64 %ak, ptr noalias %b, i64 %bk, "
    "ptr noalias %c, i64 %cm"
)


@dataclass(frozen=True)
class Tile:
    """A part of the result that is kept in registers while the sum runs.

    rows, vectors: its size; row, column: where it begins
    """

    rows: int
    vectors: int
    row: Integer
    column: Integer


def product_code(spec: KernelSpec, name: str, *, adds: bool) -> str:
    """C (+)= Σ_k a[m, k] · B[k, :]. Every sum is one chain, so that the division into
    tiles does not change it."""
    code = Code(spec.shape.number_type)
    rows_left = code.argument("m")
    done: Integer | int = 0
    # The largest tiles first, and smaller ones for the rows that are left over.
    for rows in spec.target.tile_rows:
        count = (rows_left - done) // rows
        with code.loop(0, count) as block:
            row = done + block * rows
            _write_row_of_tiles(spec, code, rows, row, adds)
        done = done + count * rows
    return code.function(f"{name}({ARGUMENTS})")


def _write_row_of_tiles(
    spec: KernelSpec, code: Code, rows: int, row: Integer, adds: bool
) -> None:
    """Tiles of nearly equal width side by side: some wide ones, then narrower ones."""
    lanes, vectors = spec.shape.number_type.lanes, spec.shape.vectors
    # Widths differ by one vector at most; a narrow last tile would waste registers.
    tiles = -(-vectors // spec.target.tile_vectors(rows))
    wide, narrow = -(-vectors // tiles), vectors // tiles
    wide_tiles = tiles if wide == narrow else vectors - narrow * tiles
    with code.loop(0, wide_tiles) as i:
        column = i * (wide * lanes)
        _write_tile(code, Tile(rows, wide, row, column), adds)
    if wide_tiles < tiles:
        with code.loop(0, tiles - wide_tiles) as i:
            column = i * (narrow * lanes) + wide_tiles * wide * lanes
            _write_tile(code, Tile(rows, narrow, row, column), adds)


def _write_tile(code: Code, tile: Tile, adds: bool) -> None:
    results = [_places_of_row(code, tile, r) for r in range(tile.rows)]
    # All loops over rows and vectors are Python's: the tile is written out in full, so
    # that every sum has a register.
    sums = [_variables(code, tile.vectors) for _ in results]
    for places, row_sums in zip(results, sums, strict=True):
        for place, total in zip(places, row_sums, strict=True):
            total.set(_first_term(place, adds))
    _add_products(code, tile, sums)
    for places, row_sums in zip(results, sums, strict=True):
        for place, total in zip(places, row_sums, strict=True):
            place.store(total.get())


def _variables(code: Code, count: int) -> list[Variable[Vector]]:
    return [Variable(code, Vector) for _ in range(count)]


def _first_term(place: Pointer, adds: bool) -> object:
    if adds:
        return place.load()
    return "zeroinitializer"


def _places_of_row(code: Code, tile: Tile, r: int) -> list[Pointer]:
    """Where the vectors of one row of the tile are stored."""
    lanes = code.number_type.lanes
    c, stride = code.pointer("c"), code.argument("cm")
    return [
        c.at((tile.row + r) * stride, tile.column, v * lanes)
        for v in range(tile.vectors)
    ]


def _add_products(code: Code, tile: Tile, sums: list[list[Variable[Vector]]]) -> None:
    """Add a[m, k] · B[k, :] for every k."""
    lanes = code.number_type.lanes
    a, row_stride = code.pointer("a"), code.argument("am")
    rows_of_a = [a.at((tile.row + r) * row_stride) for r in range(tile.rows)]
    columns_of_b = code.pointer("b").at(tile.column)
    with code.loop(0, code.argument("inner")) as k:
        row_of_b = columns_of_b.at(k * code.argument("bk"))
        step = k * code.argument("ak")
        b = [row_of_b.at(v * lanes).load() for v in range(tile.vectors)]
        for row_of_a, row_sums in zip(rows_of_a, sums, strict=True):
            # One number of a, for all vectors of B that are loaded.
            factor = row_of_a.at(step).load_in_every_lane()
            for vector, total in zip(b, row_sums, strict=True):
                total.set(total.get() + factor * vector)
