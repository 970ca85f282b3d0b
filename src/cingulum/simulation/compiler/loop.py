"""The time loop as LLVM IR: coupling, step, noise, haemodynamics, observation and
checkpoints.

One call works on a block of simulations, from one segment of steps to another.
"""

from __future__ import annotations

from cingulum.simulation.compiler.parts import Parts, function, pointer_of
from cingulum.simulation.compiler.text import Code


class Loop(Parts):
    """Writes `forward`, from segment `from` to `to`: 0, or 1 + the segment after which
    a state was not finite."""

    def _call(self, c: Code, name: str, sim: str, **rows: str) -> None:
        arguments = "".join(f", ptr {rows[pointer_of(g)]}" for g in self.rows[name])
        c.say(f"call void @{name}(ptr %A, i64 {sim}{arguments})")

    def _couple(
        self, c: Code, s: dict[str, str], p: dict[str, str], outputs: str, received: str
    ) -> None:
        couplings, width = self.shape.couplings, self.width
        if self.shape.delayed:
            with c.loop(0, s["sims"]) as b, c.loop(0, couplings) as k:
                sim = c.add(s["first"], b)
                row = c.mul(c.add(c.mul(b, couplings), k), width)
                weights = c.at(p["backward_weights"], c.mul(sim, s["weights_stride"]))
                shift = c.mul(sim, s["delay_stride"])
                offsets = c.do(
                    f"getelementptr i32, ptr {p['delay_offset']}, i64 {shift}"
                )
                c.say(
                    f"call void @gather(ptr {weights}, ptr {offsets}, ptr "
                    f"{c.at(p['delay_part'], shift)}, "
                    f"ptr {c.at(outputs, row)}, ptr {c.at(received, row)}, i64 "
                    f"{s['outputs_stride']})"
                )
            return
        self._multiply(c, s, p["forward_weights"], outputs, received)

    def _multiply(
        self, c: Code, s: dict[str, str], weights: str, rows: str, results: str
    ) -> None:
        """results = weights · rows for every simulation of the block: one product, or
        one each."""
        couplings, width, n = self.shape.couplings, self.width, self.shape.regions
        one_each = c.do(f"icmp ne i64 {s['weights_stride']}, 0")
        calls = c.do(f"select i1 {one_each}, i64 {s['sims']}, i64 1")
        m = c.do(
            f"select i1 {one_each}, i64 {couplings}, i64 {c.mul(s['sims'], couplings)}"
        )
        with c.loop(0, calls) as b:
            shift = c.mul(b, couplings * width)
            own = c.at(weights, c.mul(c.add(s["first"], b), s["weights_stride"]))
            c.say(
                f"call void @multiply(i64 {m}, i64 {n}, ptr {c.at(rows, shift)}, i64 "
                f"{width}, i64 1, ptr {own}, "
                f"i64 {width}, ptr {c.at(results, shift)}, i64 {width})"
            )

    def _advance(
        self,
        c: Code,
        s: dict[str, str],
        p: dict[str, str],
        t: str,
        here: str,
        after: str,
        ahead: str | None = None,
    ) -> None:
        """One neural step of the block. ahead: where the predicted outputs are kept, if
        they are."""
        shape, width = self.shape, self.width
        self._couple(c, s, p, here, p["received"])
        if self.form.scheme == "heun":
            with c.loop(0, s["sims"]) as b:
                self._call(
                    c,
                    "predict",
                    c.add(s["first"], b),
                    **self._rows(c, s, p, t, b, after),
                )
            if ahead:
                c.copy(ahead, after, c.mul(s["sims"], shape.couplings * width))
            self._couple(c, s, p, after, p["received_ahead"])
        with c.loop(0, s["sims"]) as b:
            self._call(
                c, "advance", c.add(s["first"], b), **self._rows(c, s, p, t, b, after)
            )

    def _rows(
        self, c: Code, s: dict[str, str], p: dict[str, str], t: str, b: str, after: str
    ) -> dict[str, str]:
        shape, width = self.shape, self.width
        of_couplings = c.mul(b, shape.couplings * width)
        rows = {
            "x": c.at(p["x"], c.mul(b, shape.states * width)),
            "v": c.at(p["received"], of_couplings),
            "v_ahead": c.at(p["received_ahead"], of_couplings),
            "z": c.at(
                p["z"], c.mul(c.sub(t, s["z_now"]), s["z_step"]), c.mul(b, s["z_sim"])
            ),
            "out": c.at(after, of_couplings),
            "activity": c.at(p["driven"], c.mul(b, width)),
        }
        if self.form.stimulated:
            row = c.mul(c.udiv(t, s["hold"]), s["stimulus_row"])
            rows["stimulus"] = c.at(
                p["stimulus"], row, c.mul(c.add(s["first"], b), s["stimulus_sim"])
            )
        return rows

    def _vascular(
        self, c: Code, s: dict[str, str], p: dict[str, str], b: str, drive: str
    ) -> None:
        """Mean drive since the last haemodynamic step to `drive`, and one such step."""
        y = c.at(p["y"], c.mul(b, self.shape.vascular * self.width))
        driven = c.at(p["driven"], c.mul(b, self.width))
        self._scaled(c, drive, driven, s["inner"])
        c.clear(driven, self.width)
        self._call(c, "respond", c.add(s["first"], b), y=y, drive=drive)

    def _scaled(
        self, c: Code, target: str, source: str, over: str, more: str | None = None
    ) -> None:
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

    def _begin_segment(
        self, c: Code, s: dict[str, str], segment: str
    ) -> tuple[str, str, str]:
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

    def _saved(
        self, c: Code, s: dict[str, str], p: dict[str, str], segment: str, back: bool
    ) -> None:
        """Checkpoint the block at the start of a segment, or come back to it."""
        shape, width = self.shape, self.width
        parts = [
            (p["x"], c.mul(s["sims"], shape.states * width)),
            (p["y"], c.mul(s["sims"], shape.vascular * width)),
            (p["driven"], c.mul(s["sims"], width)),
            (
                p["outputs"],
                c.mul(
                    c.mul(s["sims"], shape.couplings * width), c.add(s["remembered"], 1)
                ),
            ),
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
        s = self._slots(
            c,
            "first",
            "sims",
            "total",
            "steps",
            "segment",
            "inner",
            "outer",
            "origin",
            "remembered",
            "outputs_stride",
            "weights_stride",
            "delay_stride",
            "z_step",
            "z_sim",
            "drawn",
            "saving",
            "stimulus_row",
            "stimulus_sim",
            "hold",
        )
        p = self._pointers(
            c,
            "x",
            "y",
            "driven",
            "received",
            "received_ahead",
            "outputs",
            "z",
            "forward_weights",
            "backward_weights",
            "delay_offset",
            "delay_part",
            "stimulus",
            "bold",
            "activity",
            "saved",
            "kept_drive",
        )
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
                with c.when(
                    c.do(f"icmp eq i64 {c.do(f'urem i64 {done}, ' + s['inner'])}, 0")
                ):
                    last = c.do(
                        f"icmp eq i64 {c.do(f'urem i64 {done}, {per_volume}')}, 0"
                    )
                    volume = c.udiv(t, per_volume)
                    with c.loop(0, s["sims"]) as b:
                        drive = p["kept_drive"]
                        self._vascular(c, s, p, b, drive)
                        row = c.mul(
                            c.add(c.mul(volume, s["total"]), c.add(s["first"], b)),
                            width,
                        )
                        total = c.at(p["activity"], row)
                        with c.loop(0, shape.vectors) as i:
                            place = c.at(total, c.mul(i, self.numbers.lanes))
                            value = c.load(c.at(drive, c.mul(i, self.numbers.lanes)))
                            c.store(c.f("fadd", c.load(place), value), place)
                        with c.when(last):
                            self._scaled(c, total, total, s["outer"])
                            y = c.at(p["y"], c.mul(b, shape.vascular * width))
                            self._call(
                                c,
                                "observe",
                                c.add(s["first"], b),
                                y=y,
                                bold=c.at(p["bold"], row),
                            )
            self._carry(c, s, p["outputs"], s["outputs_stride"], count)
            bad = self._bad(c, s, p)
            with c.when(bad):
                c.say(f"ret i64 {c.add(segment, 1)}")
                c.label(f"after{c.count}.{len(c.lines)}")
        return function("forward(ptr noalias %A, i64 %from, i64 %to)", c, "i64")

    def _carry(
        self, c: Code, s: dict[str, str], outputs: str, stride: str, count: str
    ) -> None:
        """The last outputs of a segment become the past of the next."""
        if self.shape.delayed:
            c.copy(
                outputs,
                c.at(outputs, c.mul(count, stride)),
                c.mul(stride, c.add(s["remembered"], 1)),
            )

    def _bad(self, c: Code, s: dict[str, str], p: dict[str, str]) -> str:
        """Whether any state of the block is no longer finite."""
        n, lanes, flags = (
            self.numbers,
            self.numbers.lanes,
            f"<{self.numbers.lanes} x i1>",
        )
        found = c.do(f"alloca {flags}")
        c.say(f"store {flags} zeroinitializer, ptr {found}")
        inside = ", ".join(
            "i1 "
            f"{str(i < self.shape.regions - (self.shape.vectors - 1) * lanes).lower()}"
            for i in range(lanes)
        )
        for pointer, states in (
            (p["x"], self.shape.states),
            (p["y"], self.shape.vascular),
        ):
            with (
                c.loop(0, c.mul(s["sims"], states)) as row,
                c.loop(0, self.shape.vectors) as i,
            ):
                value = c.load(c.at(pointer, c.mul(row, self.width), c.mul(i, lanes)))
                zero = c.do(f"fsub {n.vector} {value}, {value}")
                wrong = c.compare("uno", zero, zero)
                final = c.do(f"icmp eq i64 {i}, {self.shape.vectors - 1}")
                mask = c.do(
                    f"select i1 {final}, {flags} <{inside}>, {flags} splat (i1 true)"
                )
                wrong = c.do(f"and {flags} {wrong}, {mask}")
                held = c.do(f"load {flags}, ptr {found}")
                c.say(
                    f"store {flags} {c.do(f'or {flags} {held}, {wrong}')}, ptr {found}"
                )
        bits = c.do(f"bitcast {flags} {c.do(f'load {flags}, ptr {found}')} to i{lanes}")
        return c.do(f"icmp ne i{lanes} {bits}, 0")
