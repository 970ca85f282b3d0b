"""The whole time loop as LLVM IR: coupling, step, noise, haemodynamics, observation, checkpoints, and its adjoint.

One call works on a block of simulations, from one segment of steps to another. Everything lies in rows of `width`
numbers (the regions, padded to whole vectors); A is a table of sizes and addresses, by the names in `SLOTS`.
"""

from __future__ import annotations

from dataclasses import dataclass

from cingulum.simulation.engine.machine import Target
from cingulum.simulation.engine.ssa import Program
from cingulum.simulation.engine.text import FUNCTIONS, Code, Numbers, philox_normals
from cingulum.simulation.engine.trace import Equations, Form, Pointwise

SLOTS = """
first sims total steps segment inner outer origin seed_low seed_high remembered weights_stride
forward_weights backward_weights delay_offset delay_part delay_stride
x y driven received received_ahead outputs outputs_stride z z_step z_sim z_origin drawn
stimulus stimulus_row stimulus_sim hold bold activity saved saving
g_x g_y g_driven g_drive g_outputs g_outputs_stride g_bold g_activity g_volume g_received g_received_ahead
kept_x kept_y kept_after kept_drive kept_received kept_ahead kept_outputs_ahead g_kept g_kept_ahead
g_weights g_weights_stride g_delays g_stimulus
""".split()
"""What stands where in A; after these come address and stride of every parameter, then address of its gradient."""


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


def module(equations: Equations, form: Form, shape: Shape, target: Target) -> str:
    """The text of a module with the functions `forward` and, if gradients were traced, `backward`."""
    writer = _Writer(form, shape, target)
    parts = [writer.pointwise(p) for p in equations.forward.values()]
    parts += [writer.product("multiply", False), writer.noise(), writer.forward()]
    if equations.backward:
        parts += [writer.pointwise(p) for p in equations.backward.values()]
        parts += [writer.product("multiply_add", True), writer.backward()]
    if shape.delayed:
        parts += [writer.gather(), *([writer.scatter()] if equations.backward else [])]
    n = shape.numbers
    declared = [
        "declare void @llvm.memmove.p0.p0.i64(ptr, ptr, i64, i1)",
        "declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)",
        *(f"declare {n.vector} @llvm.{f}.{n.suffix}({n.vector})" for f in ("sqrt", "fabs")),
        f"declare {n.scalar} @llvm.vector.reduce.fadd.{n.suffix}({n.scalar}, {n.vector})",
        f"declare {n.vector} @llvm.masked.gather.{n.suffix}.v{n.lanes}p0(<{n.lanes} x ptr>, i32, <{n.lanes} x i1>, "
        f"{n.vector})",
        f"declare void @llvm.masked.scatter.{n.suffix}.v{n.lanes}p0({n.vector}, <{n.lanes} x ptr>, i32, "
        f"<{n.lanes} x i1>)",
    ]
    wide = str(8 * target.vector_bytes)
    attributes = f'attributes #0 = {{ nounwind "prefer-vector-width"="{wide}" "min-legal-vector-width"="{wide}" }}'
    return "\n\n".join(["\n".join(declared), *parts, attributes, ""])


def rows_of(p: Pointwise, parameters: tuple[str, ...]) -> list[str]:
    """The arrays that a pointwise function is given, in the order of its arguments."""
    used = [p.program.lines[v][1] for v in p.program.needed([v for _, v, _ in p.results])
            if p.program.lines[v][0] == "input"]  # fmt: skip
    groups = {_group(name) for name in [*used, *(name for name, _, _ in p.results)] if name not in parameters}
    return sorted(g for g in groups if g.removeprefix("g.") not in parameters)


def _group(name: str) -> str:
    head, _, last = name.rpartition(".")
    return head if head and last.isdigit() else name


class _Writer:
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
        gradients = {n: self._gradient(c, n.removeprefix("g.")) for n, _, _ in p.results
                     if n.removeprefix("g.") in parameters}  # fmt: skip
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
                    value[v] = c.load(c.at(regional.get(line[1]) or self._row(c, line[1]), lane))
                else:
                    value[v] = self._value(c, p.program, v, value, uniform)
            for name, v, adds in p.results:
                pointer = c.at(gradients.get(name) or self._row(c, name), lane)
                c.store(c.f("fadd", c.load(pointer), value[v]) if adds else value[v], pointer)
        arguments = "".join(f", ptr noalias %{_pointer(g)}" for g in self.rows[p.name])
        return _function(f"{p.name}(ptr noalias %A, i64 %sim{arguments})", c)

    def _row(self, c: Code, name: str) -> str:
        group = _group(name)
        row = 0 if group == name else int(name.rpartition(".")[2])
        return c.at(f"%{_pointer(group)}", row * self.width)

    def _slot(self, c: Code, index: int) -> str:
        return c.do(f"load i64, ptr {c.do(f'getelementptr i64, ptr %A, i64 {index}')}, !invariant.load !{{}}")

    def _address(self, c: Code, index: int) -> str:
        return c.do(f"inttoptr i64 {self._slot(c, index)} to ptr")

    def _parameter(self, c: Code, path: str) -> str:
        index = len(SLOTS) + 2 * self.form.parameters.index(path)
        return c.at(self._address(c, index), c.mul("%sim", self._slot(c, index + 1)))

    def _gradient(self, c: Code, path: str) -> str:
        index = len(SLOTS) + 2 * len(self.form.parameters) + self.form.wanted.index(path)
        return c.at(self._address(c, index), c.mul("%sim", self.width))

    def _value(self, c: Code, p: Program, v: int, value: dict[int, str], uniform: set[int]) -> str:
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
            # Written in the loop; being the same each time round, the optimiser takes it out.
            value[-1 - v] = c.f("fdiv", c.number(1.0), value[v])
        return -1 - v

    # Products with the connection weights.

    def product(self, name: str, adds: bool) -> str:
        """C (+)= Σ_k a[m, k] · B[k, :], in tiles of registers; every sum in one chain, so tiles do not change it."""
        c = Code(self.numbers)
        done: object = 0
        for rows in self.target.tile_rows:
            count = c.udiv(c.sub("%m", done), rows)
            with c.loop(0, count) as block:
                first = c.add(done, c.mul(block, rows))
                self._tiles(c, rows, first, adds)
            done = c.add(done, c.mul(count, rows))
        arguments = "i64 %m, i64 %inner, ptr %a, i64 %am, i64 %ak, ptr noalias %b, i64 %bk, ptr noalias %c, i64 %cm"
        return _function(f"{name}({arguments})", c)

    def _tiles(self, c: Code, rows: int, first: str, adds: bool) -> None:
        vectors, most = self.shape.vectors, self.target.tile_vectors(rows)
        panels = -(-vectors // most)
        wide, rest = -(-vectors // panels), vectors // panels
        many = vectors - rest * panels if wide != rest else panels
        with c.loop(0, many) as panel:
            self._tile(c, rows, wide, first, c.mul(panel, wide * self.numbers.lanes), adds)
        if many < panels:
            with c.loop(0, panels - many) as panel:
                offset = c.add(c.mul(panel, rest * self.numbers.lanes), many * wide * self.numbers.lanes)
                self._tile(c, rows, rest, first, offset, adds)

    def _tile(self, c: Code, rows: int, vectors: int, first: str, offset: str, adds: bool) -> None:
        n, lanes = self.numbers, self.numbers.lanes
        targets = [[c.at("%c", c.mul(c.add(first, r), "%cm"), offset, v * lanes) for v in range(vectors)]
                   for r in range(rows)]  # fmt: skip
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
                    c.say(f"store {n.vector} {c.f('fadd', held, c.f('fmul', a, b[v]))}, ptr {where[r][v]}")
        for row, slots in zip(targets, where, strict=True):
            for pointer, slot in zip(row, slots, strict=True):
                c.store(c.do(f"load {n.vector}, ptr {slot}"), pointer)

    # Noise of a segment, four steps at a time.

    def noise(self) -> str:
        c, lanes = Code(self.numbers), self.numbers.lanes
        s = self._slots(c, "first", "sims", "seed_low", "seed_high", "origin", "z_step", "z_sim")
        z = self._pointers(c, "z")["z"]
        words = f"<{lanes} x i32>"
        low, high = (c.do(f"trunc i64 {s[k]} to i32") for k in ("seed_low", "seed_high"))
        start = c.add(s["origin"], "%from")
        base = c.do(f"lshr i64 {start}, 2")
        ends = c.do(f"lshr i64 {c.add(c.add(start, '%count'), 3)}, 2")
        ids = ", ".join(f"i32 {i}" for i in range(lanes))

        def spread(value: str) -> str:
            short = c.do(f"trunc i64 {value} to i32")
            one = c.do(f"insertelement {words} poison, i32 {short}, i64 0")
            return c.do(f"shufflevector {words} {one}, {words} poison, {words} zeroinitializer")

        with c.loop(0, s["sims"]) as b, c.loop(base, ends) as quarter, c.loop(0, self.shape.states) as state:
            row = c.mul(c.mul(c.sub(quarter, base), 4), s["z_step"])
            row = c.add(c.add(row, c.mul(b, s["z_sim"])), c.mul(state, self.width))
            simulation = c.add(s["first"], b)
            with c.loop(0, self.shape.vectors) as i:
                lane = c.mul(i, lanes)
                region = c.do(f"add {words} {spread(lane)}, <{ids}>")
                drawn = philox_normals(c, [region, spread(quarter), spread(simulation), spread(state)], (low, high))
                for step, value in enumerate(drawn):
                    c.store(value, c.at(z, row, lane, c.mul(s["z_step"], step)))
        return _function("draw(ptr noalias %A, i64 %from, i64 %count)", c)

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
                c.say(f"store {vector} {c.f('fadd', held, c.f('fmul', weight, value))}, ptr {total}")
            c.say(f"store {self.numbers.scalar} {self._summed(c, total)}, ptr {c.at('%received', i)}")
        return _function(
            "gather(ptr %weights, ptr %offsets, ptr %parts, ptr %outputs, ptr noalias %received, i64 %back)", c
        )

    def _summed(self, c: Code, total: str) -> str:
        n = self.numbers
        return c.do(
            f"call reassoc {n.scalar} @llvm.vector.reduce.fadd.{n.suffix}({n.scalar} {n.literal(-0.0)}, "
            f"{n.vector} {c.do(f'load {n.vector}, ptr {total}')})"
        )

    def _delayed(self, c: Code, at: str, base: str) -> tuple[str, str, list[str], list[str]]:
        n, lanes = self.numbers, self.numbers.lanes
        weight, part = c.load(c.at("%weights", at)), c.load(c.at("%parts", at))
        place = c.do(f"getelementptr i32, ptr %offsets, i64 {at}")
        offset = c.do(f"load <{lanes} x i32>, ptr {place}, align 4")
        short = c.do("trunc i64 %back to i32")
        back = c.do(f"insertelement <{lanes} x i32> poison, i32 {short}, i64 0")
        zeros = f"<{lanes} x i32> zeroinitializer"
        back = c.do(f"shufflevector <{lanes} x i32> {back}, <{lanes} x i32> poison, {zeros}")
        older = c.do(f"sub <{lanes} x i32> {offset}, {back}")
        places = [c.do(f"getelementptr {n.scalar}, ptr {base}, <{lanes} x i32> {o}") for o in (offset, older)]
        return weight, part, [self._gathered(c, p) for p in places], places

    def _gathered(self, c: Code, places: str) -> str:
        n, lanes = self.numbers, self.numbers.lanes
        return c.do(
            f"call {n.vector} @llvm.masked.gather.{n.suffix}.v{lanes}p0(<{lanes} x ptr> {places}, i32 {n.bytes}, "
            f"<{lanes} x i1> splat (i1 true), {n.vector} poison)"
        )

    def scatter(self) -> str:
        """The adjoint of `gather`: to the past outputs, and where wanted to weights and delays."""
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
                    c.store(c.f("fadd", c.load(place), c.f("fmul", sent, change)), place)
                late = c.f("fmul", sent, part)
                _, _, _, places = self._delayed(c, at, "%g_outputs")
                for where, value in zip(places, (c.f("fsub", sent, late), late), strict=True):
                    total = c.f("fadd", self._gathered(c, where), value)
                    c.say(
                        f"call void @llvm.masked.scatter.{n.suffix}.v{lanes}p0({n.vector} {total}, "
                        f"<{lanes} x ptr> {where}, i32 {n.bytes}, <{lanes} x i1> splat (i1 true))"
                    )
        arguments = "ptr %weights, ptr %offsets, ptr %parts, ptr %outputs, ptr %g, ptr %g_outputs, i64 %back"
        return _function(f"scatter({arguments}, ptr %g_weights, ptr %g_delays)", c)

    # The time loop.

    def _slots(self, c: Code, *names: str) -> dict[str, str]:
        return {name: self._slot(c, SLOTS.index(name)) for name in names}

    def _pointers(self, c: Code, *names: str) -> dict[str, str]:
        return {name: self._address(c, SLOTS.index(name)) for name in names}

    def _call(self, c: Code, name: str, sim: str, **rows: str) -> None:
        arguments = "".join(f", ptr {rows[_pointer(g)]}" for g in self.rows[name])
        c.say(f"call void @{name}(ptr %A, i64 {sim}{arguments})")

    def _couple(self, c: Code, s: dict[str, str], p: dict[str, str], outputs: str, received: str) -> None:
        couplings, width = self.shape.couplings, self.width
        if self.shape.delayed:
            with c.loop(0, s["sims"]) as b, c.loop(0, couplings) as k:
                sim = c.add(s["first"], b)
                row = c.mul(c.add(c.mul(b, couplings), k), width)
                weights = c.at(p["backward_weights"], c.mul(sim, s["weights_stride"]))
                shift = c.mul(sim, s["delay_stride"])
                offsets = c.do(f"getelementptr i32, ptr {p['delay_offset']}, i64 {shift}")
                c.say(
                    f"call void @gather(ptr {weights}, ptr {offsets}, ptr {c.at(p['delay_part'], shift)}, "
                    f"ptr {c.at(outputs, row)}, ptr {c.at(received, row)}, i64 {s['outputs_stride']})"
                )
            return
        self._multiply(c, s, p["forward_weights"], outputs, received)

    def _multiply(self, c: Code, s: dict[str, str], weights: str, rows: str, results: str) -> None:
        """results = weights · rows for every simulation of the block: one product, or one each."""
        couplings, width, n = self.shape.couplings, self.width, self.shape.regions
        one_each = c.do(f"icmp ne i64 {s['weights_stride']}, 0")
        calls = c.do(f"select i1 {one_each}, i64 {s['sims']}, i64 1")
        m = c.do(f"select i1 {one_each}, i64 {couplings}, i64 {c.mul(s['sims'], couplings)}")
        with c.loop(0, calls) as b:
            shift = c.mul(b, couplings * width)
            own = c.at(weights, c.mul(c.add(s["first"], b), s["weights_stride"]))
            c.say(
                f"call void @multiply(i64 {m}, i64 {n}, ptr {c.at(rows, shift)}, i64 {width}, i64 1, ptr {own}, "
                f"i64 {width}, ptr {c.at(results, shift)}, i64 {width})"
            )

    def _advance(
        self, c: Code, s: dict[str, str], p: dict[str, str], t: str, here: str, after: str, ahead: str | None = None
    ) -> None:
        """One neural step of the block. ahead: where the predicted outputs are kept, if they are."""
        shape, width = self.shape, self.width
        self._couple(c, s, p, here, p["received"])
        if self.form.scheme == "heun":
            with c.loop(0, s["sims"]) as b:
                self._call(c, "predict", c.add(s["first"], b), **self._rows(c, s, p, t, b, after))
            if ahead:
                c.copy(ahead, after, c.mul(s["sims"], shape.couplings * width))
            self._couple(c, s, p, after, p["received_ahead"])
        with c.loop(0, s["sims"]) as b:
            self._call(c, "advance", c.add(s["first"], b), **self._rows(c, s, p, t, b, after))

    def _rows(self, c: Code, s: dict[str, str], p: dict[str, str], t: str, b: str, after: str) -> dict[str, str]:
        shape, width = self.shape, self.width
        of_couplings = c.mul(b, shape.couplings * width)
        rows = {
            "x": c.at(p["x"], c.mul(b, shape.states * width)),
            "v": c.at(p["received"], of_couplings),
            "v_ahead": c.at(p["received_ahead"], of_couplings),
            "z": c.at(p["z"], c.mul(c.sub(t, s["z_now"]), s["z_step"]), c.mul(b, s["z_sim"])),
            "out": c.at(after, of_couplings),
            "activity": c.at(p["driven"], c.mul(b, width)),
        }
        if self.form.stimulated:
            row = c.mul(c.udiv(t, s["hold"]), s["stimulus_row"])
            rows["stimulus"] = c.at(p["stimulus"], row, c.mul(c.add(s["first"], b), s["stimulus_sim"]))
        return rows

    def _vascular(self, c: Code, s: dict[str, str], p: dict[str, str], b: str, drive: str) -> None:
        """Mean drive since the last haemodynamic step to `drive`, and one such step."""
        y = c.at(p["y"], c.mul(b, self.shape.vascular * self.width))
        driven = c.at(p["driven"], c.mul(b, self.width))
        self._scaled(c, drive, driven, s["inner"])
        c.clear(driven, self.width)
        self._call(c, "respond", c.add(s["first"], b), y=y, drive=drive)

    def _scaled(self, c: Code, target: str, source: str, over: str, more: str | None = None) -> None:
        """target = (source + more) / over."""
        share = c.broadcast(
            c.do(
                f"fdiv {self.numbers.scalar} {self.numbers.literal(1.0)}, "
                f"{c.do(f'sitofp i64 {over} to {self.numbers.scalar}')}"
            )
        )
        with c.loop(0, self.shape.vectors) as i:
            lane = c.mul(i, self.numbers.lanes)
            value = c.load(c.at(source, lane))
            value = c.f("fadd", value, c.load(c.at(more, lane))) if more else value
            c.store(c.f("fmul", value, share), c.at(target, lane))

    def _begin_segment(self, c: Code, s: dict[str, str], segment: str) -> tuple[str, str, str]:
        start = c.mul(segment, s["segment"])
        end = c.least(c.add(start, s["segment"]), s["steps"])
        count = c.sub(end, start)
        if self.form.noisy:
            with c.when(c.do(f"icmp ne i64 {s['drawn']}, 0")):
                c.say(f"call void @draw(ptr %A, i64 {start}, i64 {count})")
        # Drawn noise begins at a multiple of four steps, given noise at step 0.
        whole = c.do(f"and i64 {c.add(s['origin'], start)}, -4")
        drawn = c.do(f"icmp ne i64 {s['drawn']}, 0")
        s["z_now"] = c.do(f"select i1 {drawn}, i64 {c.sub(whole, s['origin'])}, i64 0")
        return start, end, count

    def _saved(self, c: Code, s: dict[str, str], p: dict[str, str], segment: str, back: bool) -> None:
        """Checkpoint the block at the start of a segment, or come back to it."""
        shape, width = self.shape, self.width
        parts = [
            (p["x"], c.mul(s["sims"], shape.states * width)),
            (p["y"], c.mul(s["sims"], shape.vascular * width)),
            (p["driven"], c.mul(s["sims"], width)),
            (p["outputs"], c.mul(c.mul(s["sims"], shape.couplings * width), c.add(s["remembered"], 1))),
        ]
        size = "0"
        for _, elements in parts:
            size = c.add(size, elements)
        place = c.at(p["saved"], c.mul(segment, size))
        for pointer, elements in parts:
            c.copy(*((pointer, place) if back else (place, pointer)), elements)
            place = c.at(place, elements)

    def forward(self) -> str:
        c, shape, width = Code(self.numbers), self.shape, self.width
        s = self._slots(c, "first", "sims", "total", "steps", "segment", "inner", "outer", "origin", "remembered",
                        "outputs_stride", "weights_stride", "delay_stride", "z_step", "z_sim", "drawn", "saving",
                        "stimulus_row", "stimulus_sim", "hold")  # fmt: skip
        p = self._pointers(c, "x", "y", "driven", "received", "received_ahead", "outputs", "z", "forward_weights",
                           "backward_weights", "delay_offset", "delay_part", "stimulus", "bold", "activity", "saved",
                           "kept_drive")  # fmt: skip
        per_volume = c.mul(s["inner"], s["outer"])
        with c.loop("%from", "%to") as segment:
            start, end, count = self._begin_segment(c, s, segment)
            with c.when(c.do(f"icmp ne i64 {s['saving']}, 0")):
                self._saved(c, s, p, segment, back=False)
            with c.loop(start, end) as t:
                slot = c.add(s["remembered"], c.sub(t, start))
                here = c.at(p["outputs"], c.mul(slot, s["outputs_stride"]))
                self._advance(c, s, p, t, here, c.at(here, s["outputs_stride"]))
                done = c.add(t, 1)
                with c.when(c.do(f"icmp eq i64 {c.do(f'urem i64 {done}, ' + s['inner'])}, 0")):
                    last = c.do(f"icmp eq i64 {c.do(f'urem i64 {done}, {per_volume}')}, 0")
                    volume = c.udiv(t, per_volume)
                    with c.loop(0, s["sims"]) as b:
                        drive = p["kept_drive"]
                        self._vascular(c, s, p, b, drive)
                        row = c.mul(c.add(c.mul(volume, s["total"]), c.add(s["first"], b)), width)
                        total = c.at(p["activity"], row)
                        with c.loop(0, shape.vectors) as i:
                            place = c.at(total, c.mul(i, self.numbers.lanes))
                            value = c.load(c.at(drive, c.mul(i, self.numbers.lanes)))
                            c.store(c.f("fadd", c.load(place), value), place)
                        with c.when(last):
                            self._scaled(c, total, total, s["outer"])
                            y = c.at(p["y"], c.mul(b, shape.vascular * width))
                            self._call(c, "observe", c.add(s["first"], b), y=y, bold=c.at(p["bold"], row))
            self._carry(c, s, p["outputs"], s["outputs_stride"], count)
            bad = self._bad(c, s, p)
            with c.when(bad):
                c.say(f"ret i64 {c.add(segment, 1)}")
                c.label(f"after{c.count}.{len(c.lines)}")
        return _function("forward(ptr noalias %A, i64 %from, i64 %to)", c, "i64")

    def _carry(self, c: Code, s: dict[str, str], outputs: str, stride: str, count: str) -> None:
        """The last outputs of a segment become the past of the next."""
        if self.shape.delayed:
            c.copy(outputs, c.at(outputs, c.mul(count, stride)), c.mul(stride, c.add(s["remembered"], 1)))

    def _bad(self, c: Code, s: dict[str, str], p: dict[str, str]) -> str:
        """Whether any state of the block is no longer finite."""
        n, lanes, flags = self.numbers, self.numbers.lanes, f"<{self.numbers.lanes} x i1>"
        found = c.do(f"alloca {flags}")
        c.say(f"store {flags} zeroinitializer, ptr {found}")
        inside = ", ".join(f"i1 {str(i < self.shape.regions - (self.shape.vectors - 1) * lanes).lower()}"
                           for i in range(lanes))  # fmt: skip
        for pointer, states in ((p["x"], self.shape.states), (p["y"], self.shape.vascular)):
            with c.loop(0, c.mul(s["sims"], states)) as row, c.loop(0, self.shape.vectors) as i:
                value = c.load(c.at(pointer, c.mul(row, self.width), c.mul(i, lanes)))
                zero = c.do(f"fsub {n.vector} {value}, {value}")
                wrong = c.compare("uno", zero, zero)
                final = c.do(f"icmp eq i64 {i}, {self.shape.vectors - 1}")
                mask = c.do(f"select i1 {final}, {flags} <{inside}>, {flags} splat (i1 true)")
                wrong = c.do(f"and {flags} {wrong}, {mask}")
                held = c.do(f"load {flags}, ptr {found}")
                c.say(f"store {flags} {c.do(f'or {flags} {held}, {wrong}')}, ptr {found}")
        bits = c.do(f"bitcast {flags} {c.do(f'load {flags}, ptr {found}')} to i{lanes}")
        return c.do(f"icmp ne i{lanes} {bits}, 0")

    def backward(self) -> str:
        c, shape, width = Code(self.numbers), self.shape, self.width
        s = self._slots(c, "first", "sims", "total", "steps", "segment", "inner", "outer", "origin", "remembered",
                        "outputs_stride", "weights_stride", "delay_stride", "z_step", "z_sim", "drawn",
                        "stimulus_row", "stimulus_sim", "hold", "g_outputs_stride", "g_weights_stride")  # fmt: skip
        p = self._pointers(c, *(name for name in SLOTS if name not in s and name not in SIZES))
        per_volume, block = c.mul(s["inner"], s["outer"]), s["sims"]
        of_states, of_vascular = c.mul(block, shape.states * width), c.mul(block, shape.vascular * width)
        of_regions, of_couplings = c.mul(block, width), c.mul(block, shape.couplings * width)
        with c.loop("%from", "%to", down=True) as segment:
            start, end, count = self._begin_segment(c, s, segment)
            self._saved(c, s, p, segment, back=True)
            with c.loop(start, end) as t:
                k = c.sub(t, start)
                here = c.at(p["outputs"], c.mul(c.add(s["remembered"], k), s["outputs_stride"]))
                c.copy(c.at(p["kept_x"], c.mul(k, of_states)), p["x"], of_states)
                ahead = c.at(p["kept_outputs_ahead"], c.mul(k, of_couplings))
                self._advance(c, s, p, t, here, c.at(here, s["outputs_stride"]), ahead)
                c.copy(c.at(p["kept_received"], c.mul(k, of_couplings)), p["received"], of_couplings)
                if self.form.scheme == "heun":
                    c.copy(c.at(p["kept_ahead"], c.mul(k, of_couplings)), p["received_ahead"], of_couplings)
                with c.when(c.do(f"icmp eq i64 {c.do(f'urem i64 {c.add(t, 1)}, ' + s['inner'])}, 0")):
                    c.copy(c.at(p["kept_y"], c.mul(k, of_vascular)), p["y"], of_vascular)
                    with c.loop(0, block) as b:
                        drive = c.at(p["kept_drive"], c.mul(k, of_regions), c.mul(b, width))
                        self._vascular(c, s, p, b, drive)
                    c.copy(c.at(p["kept_after"], c.mul(k, of_vascular)), p["y"], of_vascular)
            with c.loop(start, end, down=True) as t:
                self._step_back(c, s, p, t, c.sub(t, start), per_volume)
            if shape.weights_gradient and not shape.delayed:
                outputs = c.at(p["outputs"], c.mul(s["remembered"], s["outputs_stride"]))
                self._weights_gradient(c, s, p, count, p["g_kept"], outputs)
                if self.form.scheme == "heun":
                    self._weights_gradient(c, s, p, count, p["g_kept_ahead"], p["kept_outputs_ahead"])
            if shape.delayed:
                # Make room below for the steps of the segment before.
                with c.when(c.do(f"icmp sgt i64 {segment}, 0")):
                    size = c.mul(s["g_outputs_stride"], c.add(s["remembered"], 1))
                    moved = c.mul(s["g_outputs_stride"], s["segment"])
                    c.copy(c.at(p["g_outputs"], moved), p["g_outputs"], size)
                    c.clear(p["g_outputs"], moved)
        c.say("ret i64 0")
        c.label("unreachable")
        return _function("backward(ptr noalias %A, i64 %from, i64 %to)", c, "i64")

    def _step_back(self, c: Code, s: dict[str, str], p: dict[str, str], t: str, k: str, per_volume: str) -> None:
        shape, width, heun = self.shape, self.width, self.form.scheme == "heun"
        block, done = s["sims"], c.add(t, 1)
        of_couplings = c.mul(block, shape.couplings * width)
        with c.when(c.do(f"icmp eq i64 {c.do(f'urem i64 {done}, ' + s['inner'])}, 0")):
            self._vascular_back(c, s, p, t, k, per_volume)
        slot = c.add(c.add(s["remembered"], k), 1)
        g_out = c.at(p["g_outputs"], c.mul(slot, s["g_outputs_stride"]))
        after = c.at(p["outputs"], c.mul(slot, s["outputs_stride"]))
        g_received = c.at(p["g_kept"], c.mul(k, of_couplings))
        g_ahead = c.at(p["g_kept_ahead"], c.mul(k, of_couplings))
        self._reverse(c, s, p, t, k, "advance_back", g_out, g_received, g_ahead)
        if heun:
            # The outputs of step t + 1 are done with; in their place stand the predicted ones.
            if shape.delayed:
                c.clear(g_out, of_couplings)
                c.copy(after, c.at(p["kept_outputs_ahead"], c.mul(k, of_couplings)), of_couplings)
            self._couple_back(c, s, p, slot, g_ahead)
            self._reverse(c, s, p, t, k, "predict_back", g_out, g_received, g_ahead)
        self._couple_back(c, s, p, c.sub(slot, 1), g_received)

    def _reverse(
        self, c: Code, s: dict[str, str], p: dict[str, str], t: str, k: str, name: str, g_out: str, g_v: str, g_a: str
    ) -> None:
        shape, width = self.shape, self.width
        block = s["sims"]
        with c.loop(0, block) as b:
            kept = {
                **p,
                "x": c.at(p["kept_x"], c.mul(k, c.mul(block, shape.states * width))),
                "received": c.at(p["kept_received"], c.mul(k, c.mul(block, shape.couplings * width))),
                "received_ahead": c.at(p["kept_ahead"], c.mul(k, c.mul(block, shape.couplings * width))),
            }
            rows = self._rows(c, s, kept, t, b, g_out)
            of_couplings = c.mul(b, shape.couplings * width)
            rows |= {
                "g_out": rows["out"],
                "g_x": c.at(p["g_x"], c.mul(b, shape.states * width)),
                "g_activity": c.at(p["g_driven"], c.mul(b, width)),
                "g_v": c.at(g_v, of_couplings),
                "g_v_ahead": c.at(g_a, of_couplings),
            }
            if self.form.stimulus_gradient:
                row = c.mul(c.udiv(t, s["hold"]), s["stimulus_row"])
                sim = c.mul(c.add(s["first"], b), s["stimulus_sim"])
                rows["g_stimulus"] = c.at(p["g_stimulus"], row, sim)
            self._call(c, name, c.add(s["first"], b), **rows)

    def _vascular_back(self, c: Code, s: dict[str, str], p: dict[str, str], t: str, k: str, per_volume: str) -> None:
        shape, width, block = self.shape, self.width, s["sims"]
        last = c.do(f"icmp eq i64 {c.do(f'urem i64 {c.add(t, 1)}, {per_volume}')}, 0")
        volume = c.udiv(t, per_volume)
        with c.loop(0, block) as b:
            sim, of_regions, of_vascular = c.add(s["first"], b), c.mul(b, width), c.mul(b, shape.vascular * width)
            g_y, g_volume = c.at(p["g_y"], of_vascular), c.at(p["g_volume"], of_regions)
            kept = c.mul(k, c.mul(block, shape.vascular * width))
            with c.when(last):
                row = c.mul(c.add(c.mul(volume, s["total"]), sim), width)
                after = c.at(p["kept_after"], kept, of_vascular)
                self._call(c, "observe_back", sim, y=after, g_bold=c.at(p["g_bold"], row), g_y=g_y)
                self._scaled(c, g_volume, c.at(p["g_activity"], row), s["outer"])
            drive = c.at(p["kept_drive"], c.mul(k, c.mul(block, width)), of_regions)
            g_drive = c.at(p["g_drive"], of_regions)
            y = c.at(p["kept_y"], kept, of_vascular)
            self._call(c, "respond_back", sim, y=y, drive=drive, g_y=g_y, g_drive=g_drive)
            self._scaled(c, c.at(p["g_driven"], of_regions), g_drive, s["inner"], g_volume)

    def _couple_back(self, c: Code, s: dict[str, str], p: dict[str, str], slot: str, g: str) -> None:
        couplings, width = self.shape.couplings, self.width
        g_out = c.at(p["g_outputs"], c.mul(slot, s["g_outputs_stride"]))
        if not self.shape.delayed:
            self._multiply(c, s, p["backward_weights"], g, g_out)
            return
        outputs = c.at(p["outputs"], c.mul(slot, s["outputs_stride"]))
        with c.loop(0, s["sims"]) as b, c.loop(0, couplings) as k:
            sim = c.add(s["first"], b)
            row, shift = c.mul(c.add(c.mul(b, couplings), k), width), c.mul(sim, s["delay_stride"])
            weights = c.at(p["backward_weights"], c.mul(sim, s["weights_stride"]))
            offsets = c.do(f"getelementptr i32, ptr {p['delay_offset']}, i64 {shift}")
            own = c.mul(b, s["g_weights_stride"])
            c.say(
                f"call void @scatter(ptr {weights}, ptr {offsets}, ptr {c.at(p['delay_part'], shift)}, "
                f"ptr {c.at(outputs, row)}, ptr {c.at(g, row)}, ptr {c.at(g_out, row)}, i64 {s['g_outputs_stride']}, "
                f"ptr {c.at(p['g_weights'], own)}, ptr {c.at(p['g_delays'], own)})"
            )

    def _weights_gradient(
        self, c: Code, s: dict[str, str], p: dict[str, str], count: str, g: str, outputs: str
    ) -> None:
        """One product for the whole segment: Σ over steps (and simulations that share weights) of g ⊗ outputs."""
        couplings, width, n = self.shape.couplings, self.width, self.shape.regions
        rows = c.mul(s["sims"], couplings)
        one_each = c.do(f"icmp ne i64 {s['g_weights_stride']}, 0")
        calls = c.do(f"select i1 {one_each}, i64 {rows}, i64 1")
        inner = c.do(f"select i1 {one_each}, i64 {count}, i64 {c.mul(rows, count)}")
        stride = c.do(f"select i1 {one_each}, i64 {c.mul(rows, width)}, i64 {width}")
        with c.loop(0, calls) as row:
            shift = c.mul(row, width)
            own = c.at(p["g_weights"], c.mul(c.udiv(row, couplings), s["g_weights_stride"]))
            c.say(
                f"call void @multiply_add(i64 {n}, i64 {inner}, ptr {c.at(g, shift)}, i64 1, i64 {stride}, "
                f"ptr {c.at(outputs, shift)}, i64 {stride}, ptr {own}, i64 {width})"
            )


SIZES = {"seed_low", "seed_high", "saving"}
"""Slots that hold sizes and are not needed on the way back."""


def _uniform(p: Program, needed: list[int], parameters: tuple[str, ...], regional: tuple[bool, ...]) -> set[int]:
    """Values that are the same in every region."""
    found: set[int] = set()
    for v in needed:
        line = p.lines[v]
        if line[0] == "const" or (
            line[0] == "input" and line[1] in parameters and not regional[parameters.index(line[1])]
        ):
            found.add(v)
        elif line[0] != "input" and all(o in found for o in line[1:]):
            found.add(v)
    return found


def _pointer(group: str) -> str:
    return group.replace(".", "_")


def _function(head: str, c: Code, returns: str = "void") -> str:
    # Space on the stack is taken once, at the beginning, not in every turn of a loop.
    taken = [line for line in c.lines if "= alloca" in line]
    body = [line for line in c.lines if "= alloca" not in line]
    end = "  ret void" if returns == "void" else f"  ret {returns} 0"
    linkage = "internal " if returns == "void" else ""
    return "\n".join([f"define {linkage}{returns} @{head} #0 {{", "entry:", *taken, *body, end, "}"])
