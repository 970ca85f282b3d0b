"""The time loop as LLVM IR: coupling, step, noise, haemodynamics, observation and
checkpoints.

One call works on a block of simulations, from one segment of steps to another.
"""

from __future__ import annotations

from cingulum.simulation.compiler.ir import Condition, Integer, Mask, Pointer, Variable
from cingulum.simulation.compiler.layout import KernelSpec, Shape
from cingulum.simulation.compiler.steps import (
    LoopCode,
    Segment,
    advance,
    begin_segment,
    call_pointwise,
    divide,
    haemodynamic_step,
    is_multiple,
    save_checkpoint,
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
    "save_checkpoints",
    "stimulus_row",
    "stimulus_simulation",
    "hold",
)

ARRAYS = (
    "x",
    "y",
    "activity_sum",
    "received",
    "received_ahead",
    "outputs",
    "normals",
    "forward_weights",
    "backward_weights",
    "delay_offset",
    "delay_part",
    "stimulus",
    "bold",
    "activity",
    "checkpoints",
    "kept_drive",
)


def forward(spec: KernelSpec) -> str:
    """`forward`, from segment `from` to `to` − 1. It returns 0, or 1 + the segment
    after which a state was not finite."""
    loop = LoopCode.begin(spec, SIZES, ARRAYS)
    code, sizes = loop.code, loop.sizes
    per_volume = sizes["per_vascular"] * sizes["per_tr"]
    with code.loop(code.argument("from"), code.argument("to")) as index:
        segment = begin_segment(loop, index)
        # Saved at run time or not, since a run that diverged is repeated without.
        with code.when(sizes["save_checkpoints"].compare("ne", 0)):
            save_checkpoint(loop, index)
        with code.loop(segment.start, segment.end) as step:
            _write_step(loop, segment, step, per_volume)
        if spec.shape.delayed:
            _carry_over(loop, segment)
        # Once per segment: a state that is not finite stays so.
        with code.when(_has_diverged(loop)):
            code.return_early(index + 1)
    return code.exported_function("forward(ptr noalias %A, i64 %from, i64 %to)")


def _write_step(
    loop: LoopCode, segment: Segment, step: Integer, per_volume: Integer
) -> None:
    code, sizes = loop.code, loop.sizes
    slot = sizes["past_steps"] + (step - segment.start)
    outputs = loop.arrays["outputs"].at(slot * sizes["outputs_stride"])
    advance(loop, segment, step, outputs)
    done = step + 1
    with code.when(is_multiple(done, sizes["per_vascular"])):
        ends_volume = is_multiple(done, per_volume)
        volume = step // per_volume
        with code.loop(0, sizes["simulations"]) as b:
            # Forward nobody needs it again; one row serves all simulations in turn.
            drive = loop.arrays["kept_drive"]
            haemodynamic_step(loop, b, drive)
            volume_row = volume * sizes["all_simulations"] + loop.simulation(b)
            row = volume_row * loop.shape.width
            activity = loop.arrays["activity"].at(row)
            _add_row(loop, activity, drive)
            with code.when(ends_volume):
                _finish_volume(loop, b, row, activity)


def _add_row(loop: LoopCode, target: Pointer, source: Pointer) -> None:
    lanes = loop.shape.number_type.lanes
    with loop.code.loop(0, loop.shape.vectors) as i:
        place = target.at(i * lanes)
        place.add(source.at(i * lanes).load())


def _finish_volume(loop: LoopCode, b: Integer, row: Integer, activity: Pointer) -> None:
    """Mean activity of the volume, and its BOLD."""
    divide(loop, activity, activity, loop.sizes["per_tr"])
    y = loop.arrays["y"].at(b * loop.shape.vascular_width)
    simulation = loop.simulation(b)
    rows = {"y": y, "bold": loop.arrays["bold"].at(row)}
    call_pointwise(loop, "observe", simulation, rows)


def _carry_over(loop: LoopCode, segment: Segment) -> None:
    """The last outputs of a segment become the past of the next."""
    # With memmove, since a short segment is less than the past.
    outputs, stride = loop.arrays["outputs"], loop.sizes["outputs_stride"]
    last = outputs.at(segment.count * stride)
    remembered = stride * (loop.sizes["past_steps"] + 1)
    loop.code.copy(outputs, last, remembered)


def _has_diverged(loop: LoopCode) -> Condition:
    """Whether any state of the block is no longer finite."""
    bad = Variable(loop.code, Mask)
    bad.set("zeroinitializer")
    _find_not_finite(loop, loop.arrays["x"], loop.shape.states, bad)
    _find_not_finite(loop, loop.arrays["y"], loop.shape.vascular, bad)
    return bad.get().any()


def _find_not_finite(
    loop: LoopCode, array: Pointer, states: int, bad: Variable[Mask]
) -> None:
    code, shape = loop.code, loop.shape
    rows = loop.sizes["simulations"] * states
    with code.loop(0, rows) as row, code.loop(0, shape.vectors) as i:
        place = array.at(row * shape.width, i * shape.number_type.lanes)
        not_finite = place.load().is_not_finite()
        is_last = i.compare("eq", shape.vectors - 1)
        flags = Mask.type_in(code)
        # What fills the last vector up is no region, and may be anything.
        region = code.assign(
            f"select i1 {is_last}, {flags} {_regions_of_last_vector(shape)}, "
            f"{flags} splat (i1 true)"
        )
        not_finite = not_finite & Mask(code, region)
        bad.set(bad.get() | not_finite)


def _regions_of_last_vector(shape: Shape) -> str:
    """A constant mask of the lanes of the last vector that are regions."""
    lanes = shape.number_type.lanes
    count = shape.regions - (shape.vectors - 1) * lanes
    true, false = ["i1 true"] * count, ["i1 false"] * (lanes - count)
    return f"<{', '.join(true + false)}>"
