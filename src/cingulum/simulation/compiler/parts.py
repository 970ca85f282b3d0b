"""The functions that the time loop calls: traced equations, products with the weights,
noise, delays, as LLVM IR.

Everything lies in rows of `width` numbers (the regions, padded to whole vectors); A is
a table of sizes and addresses, by the names in `SLOTS`.
"""

from __future__ import annotations

from dataclasses import dataclass

from cingulum.simulation.compiler.machine_code import Target
from cingulum.simulation.compiler.ssa import Program
from cingulum.simulation.compiler.text import FUNCTIONS, Code, Numbers, philox_normals
from cingulum.simulation.compiler.tracing import Form, Pointwise

SLOTS = """
first sims total steps segment inner outer origin seed_low seed_high remembered
weights_stride forward_weights backward_weights delay_offset delay_part delay_stride x
y driven received received_ahead outputs outputs_stride z z_step z_sim z_origin drawn
stimulus stimulus_row stimulus_sim hold bold activity saved saving g_x g_y g_driven
g_drive g_outputs g_outputs_stride g_bold g_activity g_volume g_received
g_received_ahead kept_x kept_y kept_after kept_drive kept_received kept_ahead
kept_outputs_ahead g_kept g_kept_ahead g_weights g_weights_stride g_delays g_stimulus
""".split()
"""What stands where in A; after these come address and stride of every parameter, then
address of its gradient."""


@dataclass(frozen=True)
class Shape:
    """Sizes that are part of the machine code."""

    regions: int
    states: int
    vascular: int
    couplings: int
    numbers: Numbers
    regional: tuple[bool, ...]
    delayed: bool
    weights_gradient: bool
    delays_gradient: bool

    @property
    def vectors(self) -> int:
        return -(-self.regions // self.numbers.lanes)

    @property
    def width(self) -> int:
        return self.vectors * self.numbers.lanes


def rows_of(p: Pointwise, parameters: tuple[str, ...]) -> list[str]:
    """The arrays that a pointwise function is given, in the order of its arguments."""
    used = [
        p.program.lines[v][1]
        for v in p.program.needed([v for _, v, _ in p.results])
        if p.program.lines[v][0] == "input"
    ]
    groups = {
        _group(name)
        for name in [*used, *(name for name, _, _ in p.results)]
        if name not in parameters
    }
    return sorted(g for g in groups if g.removeprefix("g.") not in parameters)


def _group(name: str) -> str:
    head, _, last = name.rpartition(".")
    return head if head and last.isdigit() else name


class Parts:
    """Writes the functions; `rows` remembers which arrays each is given."""

    def __init__(self, form: Form, shape: Shape, target: Target) -> None:
        self.form, self.shape, self.target = form, shape, target
        self.numbers, self.width = shape.numbers, shape.width
        self.rows: dict[str, list[str]] = {}

    # One region after the other: the traced functions.

    def pointwise(self, p: Pointwise) -> str:
        parameters, c = self.form.parameters, Code(self.numbers)
        self.rows[p.name] = rows_of(p, parameters)
        needed = p.program.needed([v for _, v, _ in p.results])
        uniform = _uniform(p.program, needed, parameters, self.shape.regional)
        regional, value = {}, {}
        for path in parameters:
            here = [v for v in needed if p.program.lines[v][:2] == ("input", path)]
            if here:
                pointer = self._parameter(c, path)
                if here[0] in uniform:
                    value[here[0]] = c.spread(pointer)
                else:
                    regional[path] = pointer
        gradients = {
            n: self._gradient(c, n.removeprefix("g."))
            for n, _, _ in p.results
            if n.removeprefix("g.") in parameters
        }
        for v in needed:
            if v in uniform and v not in value:
                value[v] = self._value(c, p.program, v, value, uniform)
        with c.loop(0, self.shape.vectors) as i:
            lane = c.mul(i, self.numbers.lanes)
            for v in needed:
                line = p.program.lines[v]
                if v in value:
                    continue
                if line[0] == "input":
                    value[v] = c.load(
                        c.at(regional.get(line[1]) or self._row(c, line[1]), lane)
                    )
                else:
                    value[v] = self._value(c, p.program, v, value, uniform)
            for name, v, adds in p.results:
                pointer = c.at(gradients.get(name) or self._row(c, name), lane)
                c.store(
                    c.f("fadd", c.load(pointer), value[v]) if adds else value[v],
                    pointer,
                )
        arguments = "".join(
            f", ptr noalias %{pointer_of(g)}" for g in self.rows[p.name]
        )
        return function(f"{p.name}(ptr noalias %A, i64 %sim{arguments})", c)

    def _row(self, c: Code, name: str) -> str:
        group = _group(name)
        row = 0 if group == name else int(name.rpartition(".")[2])
        return c.at(f"%{pointer_of(group)}", row * self.width)

    def _slot(self, c: Code, index: int) -> str:
        return c.do(
            f"load i64, ptr {c.do(f'getelementptr i64, ptr %A, i64 {index}')}, "
            f"!invariant.load !{{}}"
        )

    def _address(self, c: Code, index: int) -> str:
        return c.do(f"inttoptr i64 {self._slot(c, index)} to ptr")

    def _parameter(self, c: Code, path: str) -> str:
        index = len(SLOTS) + 2 * self.form.parameters.index(path)
        return c.at(self._address(c, index), c.mul("%sim", self._slot(c, index + 1)))

    def _gradient(self, c: Code, path: str) -> str:
        index = (
            len(SLOTS) + 2 * len(self.form.parameters) + self.form.wanted.index(path)
        )
        return c.at(self._address(c, index), c.mul("%sim", self.width))

    def _value(
        self, c: Code, p: Program, v: int, value: dict[int, str], uniform: set[int]
    ) -> str:
        name, *operands = p.lines[v]
        if name == "const":
            return c.number(operands[0])
        a = [value[o] for o in operands]
        lanes = self.numbers.lanes
        if name == "neg":
            return c.do(f"fneg {self.numbers.vector} {a[0]}")
        if name == "div":
            over = p.number(operands[1])
            if over is not None:
                return c.f("fmul", a[0], c.number(1 / over))
            if operands[1] in uniform and v not in uniform:
                # One division outside the loop; its result is kept beside the divisor.
                return c.f("fmul", a[0], value[self._inverse(c, operands[1], value)])
        if name in ("add", "sub", "mul", "div"):
            return c.f("f" + name, a[0], a[1])
        if name in ("lt", "le", "eq"):
            return c.compare("o" + name, a[0], a[1])
        if name in ("and", "or"):
            return c.do(f"{name} <{lanes} x i1> {a[0]}, {a[1]}")
        if name == "not":
            return c.do(f"xor <{lanes} x i1> {a[0]}, splat (i1 true)")
        if name == "select":
            return c.choose(*a)
        return FUNCTIONS[name](c, a[0])

    def _inverse(self, c: Code, v: int, value: dict[int, str]) -> int:
        if -1 - v not in value:
            # Written in the loop; being the same each time round, the optimiser takes
            # it out.
            value[-1 - v] = c.f("fdiv", c.number(1.0), value[v])
        return -1 - v

    # Products with the connection weights.

    def product(self, name: str, adds: bool) -> str:
        """C (+)= Σ_k a[m, k] · B[k, :], in tiles of registers; every sum in one chain,
        so tiles do not change it."""
        c = Code(self.numbers)
        done: object = 0
        for rows in self.target.tile_rows:
            count = c.udiv(c.sub("%m", done), rows)
            with c.loop(0, count) as block:
                first = c.add(done, c.mul(block, rows))
                self._tiles(c, rows, first, adds)
            done = c.add(done, c.mul(count, rows))
        arguments = (
            "i64 %m, i64 %inner, ptr %a, i64 %am, i64 %ak, ptr noalias %b, "
            "i64 "
            "%bk, ptr noalias %c, i64 %cm"
        )
        return function(f"{name}({arguments})", c)

    def _tiles(self, c: Code, rows: int, first: str, adds: bool) -> None:
        vectors, most = self.shape.vectors, self.target.tile_vectors(rows)
        panels = -(-vectors // most)
        wide, rest = -(-vectors // panels), vectors // panels
        many = vectors - rest * panels if wide != rest else panels
        with c.loop(0, many) as panel:
            self._tile(
                c, rows, wide, first, c.mul(panel, wide * self.numbers.lanes), adds
            )
        if many < panels:
            with c.loop(0, panels - many) as panel:
                offset = c.add(
                    c.mul(panel, rest * self.numbers.lanes),
                    many * wide * self.numbers.lanes,
                )
                self._tile(c, rows, rest, first, offset, adds)

    def _tile(
        self, c: Code, rows: int, vectors: int, first: str, offset: str, adds: bool
    ) -> None:
        n, lanes = self.numbers, self.numbers.lanes
        targets = [
            [
                c.at("%c", c.mul(c.add(first, r), "%cm"), offset, v * lanes)
                for v in range(vectors)
            ]
            for r in range(rows)
        ]
        where = [[c.do(f"alloca {n.vector}") for _ in row] for row in targets]
        for row, slots in zip(targets, where, strict=True):
            for pointer, slot in zip(row, slots, strict=True):
                value = c.load(pointer) if adds else "zeroinitializer"
                c.say(f"store {n.vector} {value}, ptr {slot}")
        starts = [c.at("%a", c.mul(c.add(first, r), "%am")) for r in range(rows)]
        panel = c.at("%b", offset)
        with c.loop(0, "%inner") as k:
            row_of_b, step = c.at(panel, c.mul(k, "%bk")), c.mul(k, "%ak")
            b = [c.load(c.at(row_of_b, v * lanes)) for v in range(vectors)]
            for r in range(rows):
                a = c.spread(c.at(starts[r], step))
                for v in range(vectors):
                    held = c.do(f"load {n.vector}, ptr {where[r][v]}")
                    c.say(
                        f"store {n.vector} {c.f('fadd', held, c.f('fmul', a, b[v]))}, "
                        f"ptr {where[r][v]}"
                    )
        for row, slots in zip(targets, where, strict=True):
            for pointer, slot in zip(row, slots, strict=True):
                c.store(c.do(f"load {n.vector}, ptr {slot}"), pointer)

    # Noise of a segment, four steps at a time.

    def noise(self) -> str:
        c, lanes = Code(self.numbers), self.numbers.lanes
        s = self._slots(
            c, "first", "sims", "seed_low", "seed_high", "origin", "z_step", "z_sim"
        )
        z = self._pointers(c, "z")["z"]
        words = f"<{lanes} x i32>"
        low, high = (
            c.do(f"trunc i64 {s[k]} to i32") for k in ("seed_low", "seed_high")
        )
        start = c.add(s["origin"], "%from")
        base = c.do(f"lshr i64 {start}, 2")
        ends = c.do(f"lshr i64 {c.add(c.add(start, '%count'), 3)}, 2")
        ids = ", ".join(f"i32 {i}" for i in range(lanes))

        def spread(value: str) -> str:
            short = c.do(f"trunc i64 {value} to i32")
            one = c.do(f"insertelement {words} poison, i32 {short}, i64 0")
            return c.do(
                f"shufflevector {words} {one}, {words} poison, {words} zeroinitializer"
            )

        with (
            c.loop(0, s["sims"]) as b,
            c.loop(base, ends) as quarter,
            c.loop(0, self.shape.states) as state,
        ):
            row = c.mul(c.mul(c.sub(quarter, base), 4), s["z_step"])
            row = c.add(c.add(row, c.mul(b, s["z_sim"])), c.mul(state, self.width))
            simulation = c.add(s["first"], b)
            with c.loop(0, self.shape.vectors) as i:
                lane = c.mul(i, lanes)
                region = c.do(f"add {words} {spread(lane)}, <{ids}>")
                drawn = philox_normals(
                    c,
                    [region, spread(quarter), spread(simulation), spread(state)],
                    (low, high),
                )
                for step, value in enumerate(drawn):
                    c.store(value, c.at(z, row, lane, c.mul(s["z_step"], step)))
        return function("draw(ptr noalias %A, i64 %from, i64 %count)", c)

    # Delays: every pair of regions reads the past at its own moment.

    def gather(self) -> str:
        c = Code(self.numbers)
        vector = self.numbers.vector
        with c.loop(0, self.shape.regions) as i:
            row, total = c.mul(i, self.width), c.do(f"alloca {vector}")
            c.say(f"store {vector} zeroinitializer, ptr {total}")
            with c.loop(0, self.shape.vectors) as panel:
                at = c.add(row, c.mul(panel, self.numbers.lanes))
                weight, part, (here, older), _ = self._delayed(c, at, "%outputs")
                value = c.f("fadd", here, c.f("fmul", part, c.f("fsub", older, here)))
                held = c.do(f"load {vector}, ptr {total}")
                c.say(
                    f"store {vector} {c.f('fadd', held, c.f('fmul', weight, value))}, "
                    f"ptr {total}"
                )
            c.say(
                f"store {self.numbers.scalar} {self._summed(c, total)}, ptr "
                f"{c.at('%received', i)}"
            )
        return function(
            "gather(ptr %weights, ptr %offsets, ptr %parts, ptr %outputs, ptr noalias "
            "%received, i64 %back)",
            c,
        )

    def _summed(self, c: Code, total: str) -> str:
        n = self.numbers
        return c.do(
            f"call reassoc {n.scalar} @llvm.vector.reduce.fadd.{n.suffix}({n.scalar} "
            f"{n.literal(-0.0)}, "
            f"{n.vector} {c.do(f'load {n.vector}, ptr {total}')})"
        )

    def _delayed(
        self, c: Code, at: str, base: str
    ) -> tuple[str, str, list[str], list[str]]:
        n, lanes = self.numbers, self.numbers.lanes
        weight, part = c.load(c.at("%weights", at)), c.load(c.at("%parts", at))
        place = c.do(f"getelementptr i32, ptr %offsets, i64 {at}")
        offset = c.do(f"load <{lanes} x i32>, ptr {place}, align 4")
        short = c.do("trunc i64 %back to i32")
        back = c.do(f"insertelement <{lanes} x i32> poison, i32 {short}, i64 0")
        zeros = f"<{lanes} x i32> zeroinitializer"
        back = c.do(
            f"shufflevector <{lanes} x i32> {back}, <{lanes} x i32> poison, {zeros}"
        )
        older = c.do(f"sub <{lanes} x i32> {offset}, {back}")
        places = [
            c.do(f"getelementptr {n.scalar}, ptr {base}, <{lanes} x i32> {o}")
            for o in (offset, older)
        ]
        return weight, part, [self._gathered(c, p) for p in places], places

    def _gathered(self, c: Code, places: str) -> str:
        n, lanes = self.numbers, self.numbers.lanes
        return c.do(
            f"call {n.vector} @llvm.masked.gather.{n.suffix}.v{lanes}p0(<{lanes} x "
            f"ptr> {places}, i32 {n.bytes}, "
            f"<{lanes} x i1> splat (i1 true), {n.vector} poison)"
        )

    def scatter(self) -> str:
        """The adjoint of `gather`: to the past outputs, and where wanted to weights and
        delays."""
        c = Code(self.numbers)
        n, lanes = self.numbers, self.numbers.lanes
        with c.loop(0, self.shape.regions) as i:
            row, g = c.mul(i, self.width), c.spread(c.at("%g", i))
            with c.loop(0, self.shape.vectors) as panel:
                at = c.add(row, c.mul(panel, lanes))
                weight, part, (here, older), _ = self._delayed(c, at, "%outputs")
                change = c.f("fsub", older, here)
                if self.shape.weights_gradient:
                    place = c.at("%g_weights", at)
                    value = c.f("fmul", g, c.f("fadd", here, c.f("fmul", part, change)))
                    c.store(c.f("fadd", c.load(place), value), place)
                sent = c.f("fmul", g, weight)
                if self.shape.delays_gradient:
                    place = c.at("%g_delays", at)
                    c.store(
                        c.f("fadd", c.load(place), c.f("fmul", sent, change)), place
                    )
                late = c.f("fmul", sent, part)
                _, _, _, places = self._delayed(c, at, "%g_outputs")
                for where, value in zip(
                    places, (c.f("fsub", sent, late), late), strict=True
                ):
                    total = c.f("fadd", self._gathered(c, where), value)
                    c.say(
                        "call void "
                        f"@llvm.masked.scatter.{n.suffix}.v{lanes}p0({n.vector} "
                        f"{total}, "
                        f"<{lanes} x ptr> {where}, i32 {n.bytes}, <{lanes} x i1> splat "
                        "(i1 true))"
                    )
        arguments = (
            "ptr %weights, ptr %offsets, ptr %parts, ptr %outputs, ptr %g, "
            "ptr "
            "%g_outputs, i64 %back"
        )
        return function(f"scatter({arguments}, ptr %g_weights, ptr %g_delays)", c)

    # The table.

    def _slots(self, c: Code, *names: str) -> dict[str, str]:
        return {name: self._slot(c, SLOTS.index(name)) for name in names}

    def _pointers(self, c: Code, *names: str) -> dict[str, str]:
        return {name: self._address(c, SLOTS.index(name)) for name in names}


def _uniform(
    p: Program,
    needed: list[int],
    parameters: tuple[str, ...],
    regional: tuple[bool, ...],
) -> set[int]:
    """Values that are the same in every region."""
    found: set[int] = set()
    for v in needed:
        line = p.lines[v]
        if line[0] == "const" or (
            line[0] == "input"
            and line[1] in parameters
            and not regional[parameters.index(line[1])]
        ):
            found.add(v)
        elif line[0] != "input" and all(o in found for o in line[1:]):
            found.add(v)
    return found


def pointer_of(group: str) -> str:
    return group.replace(".", "_")


def function(head: str, c: Code, returns: str = "void") -> str:
    # Space on the stack is taken once, at the beginning, not in every turn of a loop.
    taken = [line for line in c.lines if "= alloca" in line]
    body = [line for line in c.lines if "= alloca" not in line]
    end = "  ret void" if returns == "void" else f"  ret {returns} 0"
    linkage = "internal " if returns == "void" else ""
    return "\n".join(
        [f"define {linkage}{returns} @{head} #0 {{", "entry:", *taken, *body, end, "}"]
    )
