"""What the time loop and its adjoint share, as LLVM IR: coupling, the neural step, the
haemodynamic step, noise and checkpoints of a segment."""

from __future__ import annotations

from dataclasses import dataclass

from cingulum.simulation.compiler.ir import Code, Condition, Integer, Pointer
from cingulum.simulation.compiler.layout import (
    KernelSpec,
    Shape,
    table_arrays,
    table_sizes,
)
from cingulum.simulation.compiler.pointwise import argument_of


@dataclass(frozen=True, eq=False)
class LoopCode:
    """A time loop that is being written, with the sizes and arrays from the table."""

    spec: KernelSpec
    code: Code
    sizes: dict[str, Integer]
    arrays: dict[str, Pointer]

    @classmethod
    def begin(
        cls, spec: KernelSpec, sizes: tuple[str, ...], arrays: tuple[str, ...]
    ) -> LoopCode:
        code = Code(spec.shape.number_type)
        return cls(spec, code, table_sizes(code, sizes), table_arrays(code, arrays))

    @property
    def shape(self) -> Shape:
        return self.spec.shape

    def simulation(self, b: Integer) -> Integer:
        """The number among all simulations of the block's simulation b."""
        return self.sizes["first"] + b

    def own_weights(self, name: str, simulation: Integer) -> Pointer:
        """The weights of a simulation; the stride is 0 where all share them."""
        return self.arrays[name].at(simulation * self.sizes["weights_stride"])

    def delay_offsets(self, shift: Integer) -> Pointer:
        """The offsets of a simulation's delays, which are i32."""
        name = self.arrays["delay_offset"].name
        return Pointer(self.code, name, "i32").at(shift)


@dataclass(frozen=True, eq=False)
class Segment:
    """Steps between two checkpoints.

    start, end, count: its steps, from the first step of the run
    normals_start: the step to which the first row of the noise belongs
    """

    index: Integer
    start: Integer
    end: Integer
    count: Integer
    normals_start: Integer


def begin_segment(loop: LoopCode, index: Integer) -> Segment:
    """Find the steps of a segment, and draw their noise."""
    code, sizes = loop.code, loop.sizes
    start = index * sizes["segment"]
    # The last segment may be shorter.
    end = (start + sizes["segment"]).smaller(sizes["steps"])
    count = end - start
    if loop.spec.form.noisy:
        # Whether noise is given is not part of the kernel's form, so asked at run time.
        with code.when(sizes["normals_are_drawn"].compare("ne", 0)):
            code.emit(f"call void @draw(ptr %A, i64 {start}, i64 {count})")
    # Drawn noise begins at a multiple of four steps, given noise at step 0.
    multiple_of_four = (sizes["origin"] + start) & -4
    is_drawn = sizes["normals_are_drawn"].compare("ne", 0)
    normals_start = is_drawn.choose(multiple_of_four - sizes["origin"], 0)
    return Segment(index, start, end, count, normals_start)


def save_checkpoint(loop: LoopCode, segment: Integer) -> None:
    """Keep the block as it is at the start of a segment."""
    parts = _checkpoint_parts(loop)
    place = _checkpoint(loop, segment, parts)
    for array, size in parts:
        loop.code.copy(place, array, size)
        place = place.at(size)


def restore_checkpoint(loop: LoopCode, segment: Integer) -> None:
    """Bring the block back to the start of a segment."""
    parts = _checkpoint_parts(loop)
    place = _checkpoint(loop, segment, parts)
    for array, size in parts:
        loop.code.copy(array, place, size)
        place = place.at(size)


def _checkpoint_parts(loop: LoopCode) -> list[tuple[Pointer, Integer]]:
    """The arrays of a checkpoint with the numbers in each."""
    shape, sizes, arrays = loop.shape, loop.sizes, loop.arrays
    count = sizes["simulations"]
    x = count * shape.states_width
    y = count * shape.vascular_width
    activity_sum = count * shape.width
    outputs = count * shape.couplings_width * (sizes["past_steps"] + 1)
    return [
        (arrays["x"], x),
        (arrays["y"], y),
        (arrays["activity_sum"], activity_sum),
        (arrays["outputs"], outputs),
    ]


def _checkpoint(
    loop: LoopCode, segment: Integer, parts: list[tuple[Pointer, Integer]]
) -> Pointer:
    """Where the checkpoint of a segment begins."""
    size: Integer | int = 0
    for _, part_size in parts:
        size = size + part_size
    return loop.arrays["checkpoints"].at(segment * size)


def call_pointwise(
    loop: LoopCode, name: str, simulation: Integer, rows: dict[str, Pointer]
) -> None:
    """Call a traced function for one simulation, with those of the rows that it
    uses."""
    arguments = ""
    for array in loop.spec.arguments[name]:
        arguments += f", ptr {rows[argument_of(array)]}"
    loop.code.emit(f"call void @{name}(ptr %A, i64 {simulation}{arguments})")


def couple(loop: LoopCode, outputs: Pointer, received: Pointer) -> None:
    """What every region of the block receives from all others."""
    if loop.shape.delayed:
        _couple_with_delays(loop, outputs, received)
    else:
        multiply(loop, "forward_weights", outputs, received)


def _couple_with_delays(loop: LoopCode, outputs: Pointer, received: Pointer) -> None:
    code, shape, sizes = loop.code, loop.shape, loop.sizes
    with (
        code.loop(0, sizes["simulations"]) as b,
        code.loop(0, shape.couplings) as coupling,
    ):
        simulation = loop.simulation(b)
        row = (b * shape.couplings + coupling) * shape.width
        weights = loop.own_weights("backward_weights", simulation)
        shift = simulation * sizes["delay_stride"]
        offsets = loop.delay_offsets(shift)
        parts = loop.arrays["delay_part"].at(shift)
        code.emit(
            f"call void @gather(ptr {weights}, ptr {offsets}, ptr {parts}, "
            f"ptr {outputs.at(row)}, ptr {received.at(row)}, "
            f"i64 {sizes['outputs_stride']})"
        )


def multiply(loop: LoopCode, weights: str, rows: Pointer, results: Pointer) -> None:
    """results = weights · rows for every simulation of the block: one product where
    they share their weights, otherwise one each."""
    code, shape, sizes = loop.code, loop.shape, loop.sizes
    count = sizes["simulations"]
    # One product shares every load of a weight between all simulations.
    has_own_weights = sizes["weights_stride"].compare("ne", 0)
    calls = has_own_weights.choose(count, 1)
    rows_per_call = has_own_weights.choose(shape.couplings, count * shape.couplings)
    with code.loop(0, calls) as b:
        shift = b * shape.couplings_width
        own_weights = loop.own_weights(weights, loop.simulation(b))
        code.emit(
            f"call void @multiply(i64 {rows_per_call}, i64 {shape.regions}, "
            f"ptr {rows.at(shift)}, i64 {shape.width}, i64 1, "
            f"ptr {own_weights}, i64 {shape.width}, "
            f"ptr {results.at(shift)}, i64 {shape.width})"
        )


def advance(
    loop: LoopCode,
    segment: Segment,
    step: Integer,
    outputs: Pointer,
    predicted: Pointer | None = None,
) -> None:
    """One neural step of the block.

    outputs: of the step; those of the next step come behind them
    predicted: where Heun's predicted outputs are kept, if they are
    """
    code, count = loop.code, loop.sizes["simulations"]
    after = outputs.at(loop.sizes["outputs_stride"])
    couple(loop, outputs, loop.arrays["received"])
    # Heun's second stage couples the predicted outputs, so that all regions must have
    # done the first.
    if loop.spec.is_heun:
        _call_for_each(loop, "predict", segment, step, after)
        if predicted:
            code.copy(predicted, after, count * loop.shape.couplings_width)
        couple(loop, after, loop.arrays["received_ahead"])
    _call_for_each(loop, "advance", segment, step, after)


def _call_for_each(
    loop: LoopCode, name: str, segment: Segment, step: Integer, after: Pointer
) -> None:
    with loop.code.loop(0, loop.sizes["simulations"]) as b:
        simulation = loop.simulation(b)
        rows = step_rows(loop, loop.arrays, segment, step, b, after)
        call_pointwise(loop, name, simulation, rows)


def step_rows(
    loop: LoopCode,
    arrays: dict[str, Pointer],
    segment: Segment,
    step: Integer,
    b: Integer,
    after: Pointer,
) -> dict[str, Pointer]:
    """The rows of one simulation that a neural step reads and writes.

    arrays: where states and received input are; after: outputs after the step
    """
    shape, sizes = loop.shape, loop.sizes
    coupling_rows = b * shape.couplings_width
    rows = {
        "x": arrays["x"].at(b * shape.states_width),
        "v": arrays["received"].at(coupling_rows),
        "v_ahead": arrays["received_ahead"].at(coupling_rows),
        "z": arrays["normals"].at(
            (step - segment.normals_start) * sizes["normals_step"],
            b * sizes["normals_simulation"],
        ),
        "out": after.at(coupling_rows),
        "activity": arrays["activity_sum"].at(b * shape.width),
    }
    if loop.spec.form.stimulated:
        rows["stimulus"] = stimulus_row(loop, arrays["stimulus"], step, b)
    return rows


def stimulus_row(
    loop: LoopCode, stimulus: Pointer, step: Integer, b: Integer
) -> Pointer:
    sizes = loop.sizes
    row = step // sizes["hold"] * sizes["stimulus_row"]
    return stimulus.at(row, loop.simulation(b) * sizes["stimulus_simulation"])


def is_multiple(step: Integer, period: Integer) -> Condition:
    return (step % period).compare("eq", 0)


def haemodynamic_step(loop: LoopCode, b: Integer, drive: Pointer) -> None:
    """Mean activity since the last haemodynamic step to `drive`, and one such step."""
    shape, arrays = loop.shape, loop.arrays
    y = arrays["y"].at(b * shape.vascular_width)
    activity_sum = arrays["activity_sum"].at(b * shape.width)
    divide(loop, drive, activity_sum, loop.sizes["per_vascular"])
    # The sum of the next steps begins at 0.
    loop.code.clear(activity_sum, shape.width)
    call_pointwise(loop, "respond", loop.simulation(b), {"y": y, "drive": drive})


def divide(
    loop: LoopCode,
    target: Pointer,
    source: Pointer,
    divisor: Integer,
    also: Pointer | None = None,
) -> None:
    """target = (source + also) / divisor, for one row."""
    code, kind = loop.code, loop.shape.number_type
    scalar = code.assign(f"fdiv {kind.scalar} {kind.literal(1.0)}, {divisor.scalar()}")
    # One division, and multiplications in the loop.
    inverse = code.numbers_in_every_lane(scalar)
    with code.loop(0, loop.shape.vectors) as i:
        lane = i * kind.lanes
        value = source.at(lane).load()
        if also:
            value = value + also.at(lane).load()
        quotient = value * inverse
        target.at(lane).store(quotient)
