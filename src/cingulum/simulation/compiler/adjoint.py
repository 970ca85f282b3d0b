"""The adjoint of the time loop as LLVM IR: back to a checkpoint, the steps again, then
their adjoints in reverse."""

from __future__ import annotations

from cingulum.simulation.compiler.loop import Loop
from cingulum.simulation.compiler.parts import SLOTS, function
from cingulum.simulation.compiler.text import Code


class Adjoint(Loop):
    """Writes `backward`: from segment `to` − 1 down to segment `from`."""

    def backward(self) -> str:
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
            "stimulus_row",
            "stimulus_sim",
            "hold",
            "g_outputs_stride",
            "g_weights_stride",
        )
        p = self._pointers(
            c, *(name for name in SLOTS if name not in s and name not in SIZES)
        )
        per_volume, block = c.mul(s["inner"], s["outer"]), s["sims"]
        of_states, of_vascular = (
            c.mul(block, shape.states * width),
            c.mul(block, shape.vascular * width),
        )
        of_regions, of_couplings = (
            c.mul(block, width),
            c.mul(block, shape.couplings * width),
        )
        with c.loop("%from", "%to", down=True) as segment:
            start, end, count = self._begin_segment(c, s, segment)
            self._saved(c, s, p, segment, back=True)
            with c.loop(start, end) as t:
                k = c.sub(t, start)
                here = c.at(
                    p["outputs"], c.mul(c.add(s["remembered"], k), s["outputs_stride"])
                )
                c.copy(c.at(p["kept_x"], c.mul(k, of_states)), p["x"], of_states)
                ahead = c.at(p["kept_outputs_ahead"], c.mul(k, of_couplings))
                self._advance(c, s, p, t, here, c.at(here, s["outputs_stride"]), ahead)
                c.copy(
                    c.at(p["kept_received"], c.mul(k, of_couplings)),
                    p["received"],
                    of_couplings,
                )
                if self.form.scheme == "heun":
                    c.copy(
                        c.at(p["kept_ahead"], c.mul(k, of_couplings)),
                        p["received_ahead"],
                        of_couplings,
                    )
                with c.when(
                    c.do(
                        "icmp eq i64 "
                        f"{c.do(f'urem i64 {c.add(t, 1)}, ' + s['inner'])}, 0"
                    )
                ):
                    c.copy(
                        c.at(p["kept_y"], c.mul(k, of_vascular)), p["y"], of_vascular
                    )
                    with c.loop(0, block) as b:
                        drive = c.at(
                            p["kept_drive"], c.mul(k, of_regions), c.mul(b, width)
                        )
                        self._vascular(c, s, p, b, drive)
                    c.copy(
                        c.at(p["kept_after"], c.mul(k, of_vascular)),
                        p["y"],
                        of_vascular,
                    )
            with c.loop(start, end, down=True) as t:
                self._step_back(c, s, p, t, c.sub(t, start), per_volume)
            if shape.weights_gradient and not shape.delayed:
                outputs = c.at(
                    p["outputs"], c.mul(s["remembered"], s["outputs_stride"])
                )
                self._weights_gradient(c, s, p, count, p["g_kept"], outputs)
                if self.form.scheme == "heun":
                    self._weights_gradient(
                        c, s, p, count, p["g_kept_ahead"], p["kept_outputs_ahead"]
                    )
            if shape.delayed:
                # Make room below for the steps of the segment before.
                with c.when(c.do(f"icmp sgt i64 {segment}, 0")):
                    size = c.mul(s["g_outputs_stride"], c.add(s["remembered"], 1))
                    moved = c.mul(s["g_outputs_stride"], s["segment"])
                    c.copy(c.at(p["g_outputs"], moved), p["g_outputs"], size)
                    c.clear(p["g_outputs"], moved)
        c.say("ret i64 0")
        c.label("unreachable")
        return function("backward(ptr noalias %A, i64 %from, i64 %to)", c, "i64")

    def _step_back(
        self,
        c: Code,
        s: dict[str, str],
        p: dict[str, str],
        t: str,
        k: str,
        per_volume: str,
    ) -> None:
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
            # The outputs of step t + 1 are done with; in their place stand the
            # predicted ones.
            if shape.delayed:
                c.clear(g_out, of_couplings)
                c.copy(
                    after,
                    c.at(p["kept_outputs_ahead"], c.mul(k, of_couplings)),
                    of_couplings,
                )
            self._couple_back(c, s, p, slot, g_ahead)
            self._reverse(c, s, p, t, k, "predict_back", g_out, g_received, g_ahead)
        self._couple_back(c, s, p, c.sub(slot, 1), g_received)

    def _reverse(
        self,
        c: Code,
        s: dict[str, str],
        p: dict[str, str],
        t: str,
        k: str,
        name: str,
        g_out: str,
        g_v: str,
        g_a: str,
    ) -> None:
        shape, width = self.shape, self.width
        block = s["sims"]
        with c.loop(0, block) as b:
            kept = {
                **p,
                "x": c.at(p["kept_x"], c.mul(k, c.mul(block, shape.states * width))),
                "received": c.at(
                    p["kept_received"], c.mul(k, c.mul(block, shape.couplings * width))
                ),
                "received_ahead": c.at(
                    p["kept_ahead"], c.mul(k, c.mul(block, shape.couplings * width))
                ),
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

    def _vascular_back(
        self,
        c: Code,
        s: dict[str, str],
        p: dict[str, str],
        t: str,
        k: str,
        per_volume: str,
    ) -> None:
        shape, width, block = self.shape, self.width, s["sims"]
        last = c.do(f"icmp eq i64 {c.do(f'urem i64 {c.add(t, 1)}, {per_volume}')}, 0")
        volume = c.udiv(t, per_volume)
        with c.loop(0, block) as b:
            sim, of_regions, of_vascular = (
                c.add(s["first"], b),
                c.mul(b, width),
                c.mul(b, shape.vascular * width),
            )
            g_y, g_volume = c.at(p["g_y"], of_vascular), c.at(p["g_volume"], of_regions)
            kept = c.mul(k, c.mul(block, shape.vascular * width))
            with c.when(last):
                row = c.mul(c.add(c.mul(volume, s["total"]), sim), width)
                after = c.at(p["kept_after"], kept, of_vascular)
                self._call(
                    c,
                    "observe_back",
                    sim,
                    y=after,
                    g_bold=c.at(p["g_bold"], row),
                    g_y=g_y,
                )
                self._scaled(c, g_volume, c.at(p["g_activity"], row), s["outer"])
            drive = c.at(p["kept_drive"], c.mul(k, c.mul(block, width)), of_regions)
            g_drive = c.at(p["g_drive"], of_regions)
            y = c.at(p["kept_y"], kept, of_vascular)
            self._call(
                c, "respond_back", sim, y=y, drive=drive, g_y=g_y, g_drive=g_drive
            )
            self._scaled(
                c, c.at(p["g_driven"], of_regions), g_drive, s["inner"], g_volume
            )

    def _couple_back(
        self, c: Code, s: dict[str, str], p: dict[str, str], slot: str, g: str
    ) -> None:
        couplings, width = self.shape.couplings, self.width
        g_out = c.at(p["g_outputs"], c.mul(slot, s["g_outputs_stride"]))
        if not self.shape.delayed:
            self._multiply(c, s, p["backward_weights"], g, g_out)
            return
        outputs = c.at(p["outputs"], c.mul(slot, s["outputs_stride"]))
        with c.loop(0, s["sims"]) as b, c.loop(0, couplings) as k:
            sim = c.add(s["first"], b)
            row, shift = (
                c.mul(c.add(c.mul(b, couplings), k), width),
                c.mul(sim, s["delay_stride"]),
            )
            weights = c.at(p["backward_weights"], c.mul(sim, s["weights_stride"]))
            offsets = c.do(f"getelementptr i32, ptr {p['delay_offset']}, i64 {shift}")
            own = c.mul(b, s["g_weights_stride"])
            c.say(
                f"call void @scatter(ptr {weights}, ptr {offsets}, ptr "
                f"{c.at(p['delay_part'], shift)}, "
                f"ptr {c.at(outputs, row)}, ptr {c.at(g, row)}, ptr "
                f"{c.at(g_out, row)}, i64 {s['g_outputs_stride']}, "
                f"ptr {c.at(p['g_weights'], own)}, ptr {c.at(p['g_delays'], own)})"
            )

    def _weights_gradient(
        self,
        c: Code,
        s: dict[str, str],
        p: dict[str, str],
        count: str,
        g: str,
        outputs: str,
    ) -> None:
        """One product for the whole segment: Σ over steps (and simulations that share
        weights) of g ⊗ outputs."""
        couplings, width, n = self.shape.couplings, self.width, self.shape.regions
        rows = c.mul(s["sims"], couplings)
        one_each = c.do(f"icmp ne i64 {s['g_weights_stride']}, 0")
        calls = c.do(f"select i1 {one_each}, i64 {rows}, i64 1")
        inner = c.do(f"select i1 {one_each}, i64 {count}, i64 {c.mul(rows, count)}")
        stride = c.do(f"select i1 {one_each}, i64 {c.mul(rows, width)}, i64 {width}")
        with c.loop(0, calls) as row:
            shift = c.mul(row, width)
            own = c.at(
                p["g_weights"], c.mul(c.udiv(row, couplings), s["g_weights_stride"])
            )
            c.say(
                f"call void @multiply_add(i64 {n}, i64 {inner}, ptr {c.at(g, shift)}, "
                f"i64 1, i64 {stride}, "
                f"ptr {c.at(outputs, shift)}, i64 {stride}, ptr {own}, i64 {width})"
            )


SIZES = {"seed_low", "seed_high", "saving"}
"""Slots that hold sizes and are not needed on the way back."""
