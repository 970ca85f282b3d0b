"""The two passes of a run through machine code, block by block: forward, and backward
for the gradients."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from cingulum.simulation.compiler.block_table import BlockTable
from cingulum.simulation.compiler.execution import (
    Block,
    Execution,
    newest_first,
    oldest_first,
)
from cingulum.simulation.state import diverged

CHANGING = ("x", "y", "activity_sum", "outputs")
"""The arrays of a block that go on from segment to segment."""

BACKWARD_COST = 4
"""About how many times as long a segment takes backwards."""


class ForwardPass:
    """Fills the results of a run, and its checkpoints where gradients are wanted."""

    def __init__(self, execution: Execution) -> None:
        shape, count = execution.shape, execution.simulations
        volumes, past_steps = execution.run.volumes, execution.past_steps
        zeros = execution.zeros
        self.execution = execution
        self.bold = zeros(volumes, count, shape.width)
        self.activity = zeros(volumes, count, shape.width)
        self.x = zeros(shape.states, count, shape.width)
        self.y = zeros(shape.vascular, count, shape.width)
        self.past = zeros(past_steps + 1, shape.couplings, count, shape.width)

    def run(self) -> None:
        show = self.execution.run.show_progress
        self.execution.run_blocks(self._run_block, "simulate", show=show)

    def _run_block(self, block: Block) -> Iterator[None]:
        execution = self.execution
        arrays = execution.workspace(block)
        table = self._table(block, arrays)
        step = execution.segments_per_call(len(block))
        for start in range(0, execution.segments, step):
            # To come back to if a state diverges.
            before = {name: arrays[name].copy() for name in CHANGING}
            stop = min(start + step, execution.segments)
            failed = execution.kernel.call("forward", table.values, start, stop)
            if failed:
                for name, values in before.items():
                    arrays[name][:] = values
                self._raise_divergence(block, table, start)
            yield
        self.x[:, block.of] = arrays["x"].transpose(1, 0, 2)
        self.y[:, block.of] = arrays["y"].transpose(1, 0, 2)
        remembered = arrays["outputs"][: execution.past_steps + 1]
        self.past[:, :, block.of] = newest_first(remembered)

    def _table(self, block: Block, arrays: dict[str, np.ndarray]) -> BlockTable:
        execution = self.execution
        table = execution.table(block, arrays)
        table.set_arrays({"bold": self.bold, "activity": self.activity})
        if execution.form.gradient:
            size = len(block) * execution.checkpoint_width
            checkpoints = execution.zeros(execution.segments, size)
            execution.checkpoints[block.index] = checkpoints
            table.set_arrays({"checkpoints": checkpoints})
            table.set_sizes(save_checkpoints=1)
        return table

    def _raise_divergence(self, block: Block, table: BlockTable, start: int) -> None:
        """The segments from `start` once more, step by step, to name the first step and
        region that diverge."""
        execution, run = self.execution, self.execution.run
        # Segments of one step: each call then ends with the test of all states.
        table.set_sizes(segment=1, save_checkpoints=0)
        for step in range(start * execution.segment, run.steps):
            if execution.kernel.call("forward", table.values, step, step + 1):
                is_finite = self._finite_regions(block, table)
                raise diverged(run.brain, is_finite, run.start.step + step + 1, run.dt)

    def _finite_regions(self, block: Block, table: BlockTable) -> torch.Tensor:
        """(*batch, region); simulations of other blocks count as finite."""
        execution = self.execution
        x, y = table.arrays["x"], table.arrays["y"]
        is_finite = np.isfinite(x).all(1) & np.isfinite(y).all(1)
        regions = execution.shape.regions
        every = torch.ones(execution.simulations, regions, dtype=torch.bool)
        every[block.of] = torch.from_numpy(is_finite[:, :regions])
        return every.reshape(execution.run.start.neural.shape[1:])


class BackwardPass:
    """Fills the gradients of every input of a run.

    gradients: of bold, activity, x, y and past, in their padded shapes
    by_input: the gradients that are asked for, by name
    """

    def __init__(self, execution: Execution, gradients: dict[str, np.ndarray]) -> None:
        self.execution = execution
        self.gradients = gradients
        arguments, shape = execution.arguments, execution.shape
        self.shares_pairs = arguments.is_shared("weights") and arguments.is_shared(
            "delays"
        )
        count, zeros = execution.simulations, execution.zeros
        slots = execution.past_steps + 1
        self.by_input = {
            "x": zeros(shape.states, count, shape.width),
            "y": zeros(shape.vascular, count, shape.width),
            "past": zeros(slots, shape.couplings, count, shape.width),
        }
        for path in execution.form.wanted:
            self.by_input[path] = zeros(count, shape.width)
        if execution.form.stimulus_gradient:
            stimulus = execution.inputs["stimulus"]
            self.by_input["stimulus"] = zeros(*stimulus.shape)
        # Blocks run side by side, so that each adds to arrays of its own.
        pairs = count
        if self.shares_pairs:
            pairs = len(execution.blocks)
        for name in self._pair_gradients():
            self.by_input[name] = zeros(pairs, shape.regions, shape.width)

    def _pair_gradients(self) -> list[str]:
        """Those of weights and delays whose gradient is asked for."""
        shape = self.execution.shape
        names = []
        if shape.weights_gradient:
            names.append("weights")
        if shape.delays_gradient:
            names.append("delays")
        return names

    def run(self) -> None:
        self.execution.run_blocks(self._run_block, "gradient")

    def _run_block(self, block: Block) -> Iterator[None]:
        execution = self.execution
        arrays = self._workspace(block)
        table = self._table(block, arrays)
        step = max(1, execution.segments_per_call(len(block)) // BACKWARD_COST)
        for stop in range(execution.segments, 0, -step):
            start = max(0, stop - step)
            execution.kernel.call("backward", table.values, start, stop)
            yield
        self.by_input["x"][:, block.of] = arrays["g_x"].transpose(1, 0, 2)
        self.by_input["y"][:, block.of] = arrays["g_y"].transpose(1, 0, 2)
        remembered = arrays["g_outputs"][: execution.past_steps + 1]
        self.by_input["past"][:, :, block.of] = newest_first(remembered)

    def _workspace(self, block: Block) -> dict[str, np.ndarray]:
        execution = self.execution
        shape, n, zeros = execution.shape, len(block), execution.zeros
        slots = execution.past_steps + 1 + execution.segment
        gradient_slots = 1
        if shape.delayed:
            gradient_slots = slots
        arrays = execution.workspace(block)
        arrays |= {
            "outputs": zeros(slots, n, shape.couplings, shape.width),
            "checkpoints": execution.checkpoints[block.index],
            "g_x": zeros(n, shape.states, shape.width),
            "g_y": zeros(n, shape.vascular, shape.width),
            "g_activity_sum": zeros(n, shape.width),
            "g_drive": zeros(n, shape.width),
            "g_volume": zeros(n, shape.width),
            "g_outputs": zeros(gradient_slots, n, shape.couplings, shape.width),
            "g_bold": self.gradients["bold"],
            "g_activity": self.gradients["activity"],
        }
        # These replace what the forward pass works with.
        arrays |= self._kept(n)
        arrays |= self._shared_gradients(block)
        self._begin_at_the_end(block, arrays)
        return arrays

    def _kept(self, n: int) -> dict[str, np.ndarray]:
        """What is kept of every step of a segment."""
        execution = self.execution
        shape, steps, zeros = execution.shape, execution.segment, execution.zeros
        kept = {
            "kept_x": zeros(steps, n, shape.states, shape.width),
            "kept_y": zeros(steps, n, shape.vascular, shape.width),
            "kept_after": zeros(steps, n, shape.vascular, shape.width),
            "kept_drive": zeros(steps, n, shape.width),
        }
        names = ["kept_received", "g_kept_received"]
        if execution.form.scheme == "heun":
            names += [
                "kept_received_ahead",
                "kept_outputs_ahead",
                "g_kept_received_ahead",
            ]
        for name in names:
            kept[name] = zeros(steps, n, shape.couplings, shape.width)
        return kept

    def _shared_gradients(self, block: Block) -> dict[str, np.ndarray]:
        """A block's part of the gradients that are added up over steps."""
        first = block.index if self.shares_pairs else block.first
        gradients = {
            f"g_{name}": self.by_input[name][first:] for name in self._pair_gradients()
        }
        if self.execution.form.stimulus_gradient:
            gradients["g_stimulus"] = self.by_input["stimulus"]
        return gradients

    def _begin_at_the_end(self, block: Block, arrays: dict[str, np.ndarray]) -> None:
        """Put the gradients of the final state in their places."""
        execution = self.execution
        for name in ("x", "y"):
            final = self.gradients[name][:, block.of]
            arrays[f"g_{name}"][:] = final.transpose(1, 0, 2)
        # The last segment may be shorter: its end is where its steps end.
        if execution.shape.delayed:
            whole_segments = execution.segments - 1
            first = execution.run.steps - whole_segments * execution.segment
            end = arrays["g_outputs"][first : first + execution.past_steps + 1]
            end[:] = oldest_first(self.gradients["past"][:, :, block.of])

    def _table(self, block: Block, arrays: dict[str, np.ndarray]) -> BlockTable:
        execution, shape = self.execution, self.execution.shape
        table = execution.table(block, arrays)
        # Forward without delays a stride of 0 lets every step write over the one
        # before; the adjoint needs the outputs of all steps of a segment.
        outputs_stride = len(block) * shape.couplings_width
        pairs = shape.regions * shape.width
        table.set_sizes(
            outputs_stride=outputs_stride,
            g_outputs_stride=outputs_stride * shape.delayed,
            g_weights_stride=pairs * (not self.shares_pairs),
        )
        for path in execution.form.wanted:
            table.set_gradient(path, self.by_input[path])
        return table
