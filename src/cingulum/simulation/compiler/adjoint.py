"""The adjoint of the time loop as LLVM IR: back to a checkpoint, the steps again, then
their adjoints in reverse."""

from __future__ import annotations

from dataclasses import dataclass

from cingulum.simulation.compiler.ir import Integer, Pointer
from cingulum.simulation.compiler.layout import SLOTS, KernelSpec
from cingulum.simulation.compiler.steps import (
    LoopCode,
    Segment,
    advance,
    begin_segment,
    call_pointwise,
    divide,
    haemodynamic_step,
    is_multiple,
    multiply,
    restore_checkpoint,
    step_rows,
    stimulus_row,
)

SIZES = (
    "first",
    "simulations",
    "all_simulations",
    "steps",
    "segment",
    "per_vascular",
    "per_tr",
    "origin",
    "past_steps",
    "outputs_stride",
    "weights_stride",
    "delay_stride",
    "normals_step",
    "normals_simulation",
    "normals_are_drawn",
    "stimulus_row",
    "stimulus_simulation",
    "hold",
    "g_outputs_stride",
    "g_weights_stride",
)

UNUSED = ("seed_low", "seed_high", "save_checkpoints")
"""Sizes that are not needed on the way back."""

ARRAYS = tuple(name for name in SLOTS if name not in SIZES and name not in UNUSED)


def backward(spec: KernelSpec) -> str:
    """`backward`: from segment `to` − 1 down to segment `from`."""
    loop = LoopCode.begin(spec, SIZES, ARRAYS)
    adjoint = _Adjoint(loop)
    code = loop.code
    with code.loop_down(code.argument("from"), code.argument("to")) as index:
        # Noise is counter-based, so that it comes out the same when drawn again.
        segment = begin_segment(loop, index)
        restore_checkpoint(loop, index)
        with code.loop(segment.start, segment.end) as step:
            adjoint.repeat_step(segment, step)
        with code.loop_down(segment.start, segment.end) as step:
            adjoint.reverse_step(segment, step)
        adjoint.finish_segment(segment)
    code.emit("ret i64 0")
    code.label("unreachable")
    return code.exported_function("backward(ptr noalias %A, i64 %from, i64 %to)")


class _Adjoint:
    """The parts of `backward`.

    Sizes of the block's arrays at one step: of its states, its haemodynamic states, one
    row each, and its outputs.
    """

    def __init__(self, loop: LoopCode) -> None:
        self.loop = loop
        self.code = loop.code
        self.shape = loop.shape
        self.sizes = loop.sizes
        self.arrays = loop.arrays
        self.count = loop.sizes["simulations"]
        self.per_volume = loop.sizes["per_vascular"] * loop.sizes["per_tr"]
        self.block_states = self.count * self.shape.states_width
        self.block_vascular = self.count * self.shape.vascular_width
        self.block_rows = self.count * self.shape.width
        self.block_couplings = self.count * self.shape.couplings_width

    # The steps of a segment once more.

    def repeat_step(self, segment: Segment, step: Integer) -> None:
        """Do a step again, and keep what its adjoint needs."""
        code, arrays = self.code, self.arrays
        # Unlike forward, every step of the segment has outputs of its own.
        k = step - segment.start
        slot = self.sizes["past_steps"] + k
        outputs = arrays["outputs"].at(slot * self.sizes["outputs_stride"])
        kept_x = arrays["kept_x"].at(k * self.block_states)
        code.copy(kept_x, arrays["x"], self.block_states)
        predicted = arrays["kept_outputs_ahead"].at(k * self.block_couplings)
        advance(self.loop, segment, step, outputs, predicted)
        self._keep_received(k, "received")
        if self.loop.spec.is_heun:
            self._keep_received(k, "received_ahead")
        done = step + 1
        with code.when(is_multiple(done, self.sizes["per_vascular"])):
            self._repeat_haemodynamic_step(k)

    def _keep_received(self, k: Integer, name: str) -> None:
        kept = self.arrays[f"kept_{name}"].at(k * self.block_couplings)
        self.code.copy(kept, self.arrays[name], self.block_couplings)

    def _repeat_haemodynamic_step(self, k: Integer) -> None:
        code, arrays = self.code, self.arrays
        before = arrays["kept_y"].at(k * self.block_vascular)
        code.copy(before, arrays["y"], self.block_vascular)
        with code.loop(0, self.count) as b:
            row = k * self.block_rows
            drive = arrays["kept_drive"].at(row, b * self.shape.width)
            haemodynamic_step(self.loop, b, drive)
        after = arrays["kept_after"].at(k * self.block_vascular)
        code.copy(after, arrays["y"], self.block_vascular)

    # One step backwards.

    def reverse_step(self, segment: Segment, step: Integer) -> None:
        code, arrays, sizes = self.code, self.arrays, self.sizes
        k = step - segment.start
        done = step + 1
        block_couplings = self.count * self.shape.couplings_width
        with code.when(is_multiple(done, sizes["per_vascular"])):
            self._reverse_haemodynamic_step(step, k)
        slot = sizes["past_steps"] + k + 1
        g_outputs = arrays["g_outputs"].at(slot * sizes["g_outputs_stride"])
        outputs = arrays["outputs"].at(slot * sizes["outputs_stride"])
        g_received = arrays["g_kept_received"].at(k * block_couplings)
        g_ahead = arrays["g_kept_received_ahead"].at(k * block_couplings)
        reverse = _Reverse(segment, step, k, g_outputs, g_received, g_ahead)
        self._reverse_neural_step("advance_back", reverse)
        if self.loop.spec.is_heun:
            # The outputs of the next step are done with; the predicted ones take their
            # place.
            if self.shape.delayed:
                code.clear(g_outputs, block_couplings)
                predicted = arrays["kept_outputs_ahead"].at(k * block_couplings)
                code.copy(outputs, predicted, block_couplings)
            self._reverse_coupling(slot, g_ahead)
            self._reverse_neural_step("predict_back", reverse)
        self._reverse_coupling(slot - 1, g_received)

    def _reverse_neural_step(self, name: str, reverse: _Reverse) -> None:
        """Call the adjoint of `advance` or `predict` for every simulation."""
        with self.code.loop(0, self.count) as b:
            rows = self._kept_rows(reverse, b)
            rows |= self._gradient_rows(reverse, b)
            # The step's rows were asked for with the outputs' gradient in their place.
            rows["g_out"] = rows["out"]
            if self.loop.spec.form.stimulus_gradient:
                g_stimulus = self.arrays["g_stimulus"]
                rows["g_stimulus"] = stimulus_row(
                    self.loop, g_stimulus, reverse.step, b
                )
            call_pointwise(self.loop, name, self.loop.simulation(b), rows)

    def _kept_rows(self, reverse: _Reverse, b: Integer) -> dict[str, Pointer]:
        """What the step read; its outputs are replaced by their gradient."""
        shape, k = self.shape, reverse.k
        kept = {
            "x": self._kept("kept_x", k, shape.states_width),
            "received": self._kept("kept_received", k, shape.couplings_width),
            "received_ahead": self._kept(
                "kept_received_ahead", k, shape.couplings_width
            ),
        }
        arrays = {**self.arrays, **kept}
        return step_rows(
            self.loop, arrays, reverse.segment, reverse.step, b, reverse.g_outputs
        )

    def _gradient_rows(self, reverse: _Reverse, b: Integer) -> dict[str, Pointer]:
        shape, arrays = self.shape, self.arrays
        coupling_rows = b * shape.couplings_width
        return {
            "g_x": arrays["g_x"].at(b * shape.states_width),
            "g_activity": arrays["g_activity_sum"].at(b * shape.width),
            "g_v": reverse.g_received.at(coupling_rows),
            "g_v_ahead": reverse.g_ahead.at(coupling_rows),
        }

    def _kept(self, name: str, k: Integer, width: int) -> Pointer:
        """What was kept of step k of the segment; width: of one simulation."""
        return self.arrays[name].at(k * (self.count * width))

    def _reverse_haemodynamic_step(self, step: Integer, k: Integer) -> None:
        code, shape, arrays = self.code, self.shape, self.arrays
        ends_volume = is_multiple(step + 1, self.per_volume)
        volume = step // self.per_volume
        with code.loop(0, self.count) as b:
            simulation = self.loop.simulation(b)
            row = b * shape.width
            vascular_row = b * shape.vascular_width
            g_y = arrays["g_y"].at(vascular_row)
            g_volume = arrays["g_volume"].at(row)
            kept = k * (self.count * shape.vascular_width)
            with code.when(ends_volume):
                volume_row = volume * self.sizes["all_simulations"] + simulation
                g_row = volume_row * shape.width
                after = arrays["kept_after"].at(kept, vascular_row)
                self._reverse_volume(simulation, g_row, after, g_y, g_volume)
            drive = self._kept("kept_drive", k, shape.width).at(row)
            g_drive = arrays["g_drive"].at(row)
            y = arrays["kept_y"].at(kept, vascular_row)
            rows = {"y": y, "drive": drive, "g_y": g_y, "g_drive": g_drive}
            call_pointwise(self.loop, "respond_back", simulation, rows)
            g_activity_sum = arrays["g_activity_sum"].at(row)
            per_vascular = self.sizes["per_vascular"]
            divide(self.loop, g_activity_sum, g_drive, per_vascular, also=g_volume)

    def _reverse_volume(
        self,
        simulation: Integer,
        row: Integer,
        y: Pointer,
        g_y: Pointer,
        g_volume: Pointer,
    ) -> None:
        """The adjoint of a volume's BOLD and mean activity; row: of the volume."""
        g_bold = self.arrays["g_bold"].at(row)
        rows = {"y": y, "g_bold": g_bold, "g_y": g_y}
        call_pointwise(self.loop, "observe_back", simulation, rows)
        g_activity = self.arrays["g_activity"].at(row)
        divide(self.loop, g_volume, g_activity, self.sizes["per_tr"])

    def _reverse_coupling(self, slot: Integer, g_received: Pointer) -> None:
        """From the gradient of what was received to those of the outputs in `slot`."""
        sizes, arrays = self.sizes, self.arrays
        g_outputs = arrays["g_outputs"].at(slot * sizes["g_outputs_stride"])
        # With delays the gradient also goes to slots of earlier steps.
        if self.shape.delayed:
            outputs = arrays["outputs"].at(slot * sizes["outputs_stride"])
            self._reverse_delays(outputs, g_outputs, g_received)
        else:
            # The transposed product: `multiply` takes its weights by rows.
            multiply(self.loop, "backward_weights", g_received, g_outputs)

    def _reverse_delays(
        self, outputs: Pointer, g_outputs: Pointer, g_received: Pointer
    ) -> None:
        code, shape, sizes, arrays = self.code, self.shape, self.sizes, self.arrays
        with (
            code.loop(0, self.count) as b,
            code.loop(0, shape.couplings) as coupling,
        ):
            simulation = self.loop.simulation(b)
            row = (b * shape.couplings + coupling) * shape.width
            shift = simulation * sizes["delay_stride"]
            weights = self.loop.own_weights("backward_weights", simulation)
            offsets = self.loop.delay_offsets(shift)
            own_gradient = b * sizes["g_weights_stride"]
            parts = arrays["delay_part"].at(shift)
            code.emit(
                f"call void @scatter(ptr {weights}, ptr {offsets}, ptr {parts}, "
                f"ptr {outputs.at(row)}, ptr {g_received.at(row)}, "
                f"ptr {g_outputs.at(row)}, i64 {sizes['g_outputs_stride']}, "
                f"ptr {arrays['g_weights'].at(own_gradient)}, "
                f"ptr {arrays['g_delays'].at(own_gradient)})"
            )

    # Once for a whole segment.

    def finish_segment(self, segment: Segment) -> None:
        # With delays `scatter` has added the gradient of the weights step by step.
        if self.shape.delayed:
            self._move_output_gradients(segment)
        elif self.shape.weights_gradient:
            self._add_weights_gradients(segment)

    def _move_output_gradients(self, segment: Segment) -> None:
        """Make room below for the steps of the segment before."""
        code, stride = self.code, self.sizes["g_outputs_stride"]
        g_outputs = self.arrays["g_outputs"]
        with code.when(segment.index.compare("sgt", 0)):
            remembered = stride * (self.sizes["past_steps"] + 1)
            distance = stride * self.sizes["segment"]
            code.copy(g_outputs.at(distance), g_outputs, remembered)
            code.clear(g_outputs, distance)

    def _add_weights_gradients(self, segment: Segment) -> None:
        arrays, sizes = self.arrays, self.sizes
        outputs = arrays["outputs"].at(sizes["past_steps"] * sizes["outputs_stride"])
        self._add_weights_gradient(segment, arrays["g_kept_received"], outputs)
        if self.loop.spec.is_heun:
            g_ahead = arrays["g_kept_received_ahead"]
            predicted = arrays["kept_outputs_ahead"]
            self._add_weights_gradient(segment, g_ahead, predicted)

    def _add_weights_gradient(
        self, segment: Segment, g_received: Pointer, outputs: Pointer
    ) -> None:
        """One product for the whole segment: Σ over steps (and simulations that share
        weights) of g_received ⊗ outputs."""
        code, shape = self.code, self.shape
        own_stride = self.sizes["g_weights_stride"]
        rows = self.count * shape.couplings
        has_own_weights = own_stride.compare("ne", 0)
        calls = has_own_weights.choose(rows, 1)
        inner = has_own_weights.choose(segment.count, rows * segment.count)
        stride = has_own_weights.choose(rows * shape.width, shape.width)
        with code.loop(0, calls) as row:
            shift = row * shape.width
            g_weights = self.arrays["g_weights"].at(row // shape.couplings * own_stride)
            code.emit(
                f"call void @multiply_add(i64 {shape.regions}, i64 {inner}, "
                f"ptr {g_received.at(shift)}, i64 1, i64 {stride}, "
                f"ptr {outputs.at(shift)}, i64 {stride}, "
                f"ptr {g_weights}, i64 {shape.width})"
            )


@dataclass(frozen=True, eq=False)
class _Reverse:
    """A neural step that is being reversed.

    k: the step within its segment; g_outputs, g_received, g_ahead: gradients of the
        outputs after the step, of what it received, and of what Heun's second stage
        received
    """

    segment: Segment
    step: Integer
    k: Integer
    g_outputs: Pointer
    g_received: Pointer
    g_ahead: Pointer
