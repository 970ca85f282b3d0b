"""A run laid out for machine code: its inputs as padded arrays, its simulations in
blocks, and its steps in segments."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cingulum.progress import track
from cingulum.simulation.compiler.arguments import KernelArguments
from cingulum.simulation.compiler.block_table import BlockTable
from cingulum.simulation.compiler.kernels import Kernel
from cingulum.simulation.noise import philox_key
from cingulum.simulation.state import Run

SIMULATIONS_PER_BLOCK = 8
"""Simulations that share every load of a connection weight."""

CHECKPOINT_BYTES = 64 * 2**20
"""What the checkpoints of all simulations together aim to stay below."""

REGION_STEPS_PER_CALL = 2e7
"""About a tenth of a second in machine code, so that an interrupt is soon noticed."""

LEAST_SEGMENT = 64
"""Steps of the shortest segment: enough that checkpoints cost little."""

SPARE_NOISE_STEPS = 8
"""Noise is drawn for four steps at a time, from before a segment to behind it."""

SHARED_INPUTS = ("forward_weights", "backward_weights", "delay_part", "stimulus")
"""Arrays that every block reads as they are."""

ALIGNMENT = 64
"""Bytes of the widest vector."""


@dataclass(frozen=True)
class Block:
    """Simulations that one call works on together; index: among the blocks."""

    index: int
    simulations: range

    def __len__(self) -> int:
        return len(self.simulations)

    @property
    def first(self) -> int:
        return self.simulations.start

    @property
    def of(self) -> slice:
        """Its part of an axis of simulations."""
        return slice(self.simulations.start, self.simulations.stop)


BlockWork = Callable[[Block], Iterator[None]]
"""What is done for a block; it yields after every call into machine code."""


class Execution:
    """One run, laid out for a kernel.

    past_steps: outputs that are remembered beside the present one
    segment: steps between two checkpoints; segments: how many
    inputs, parameters: arrays that all blocks share, by their names in the table, and
        by path
    checkpoints: of every block, from the forward to the backward pass
    """

    def __init__(
        self, run: Run, arguments: KernelArguments, kernel: Kernel, threads: int
    ) -> None:
        self.run = run
        self.arguments = arguments
        self.kernel = kernel
        self.threads = threads
        self.shape = kernel.shape
        self.form = kernel.form
        self.simulations = arguments.simulations
        self.dtype = np.dtype(f"f{self.shape.number_type.bytes}")
        self.past_steps = arguments["past"].shape[0] - 1
        self.segment = self._steps_per_segment()
        self.segments = -(-run.steps // self.segment)
        self.blocks = self._blocks()
        self.inputs = self._inputs()
        self.parameters = {p: self._parameter(p) for p in self.form.parameters}
        self.whole_delays = self._whole_delays()
        self.checkpoints: dict[int, np.ndarray] = {}

    @property
    def checkpoint_width(self) -> int:
        """Numbers in a checkpoint of one simulation."""
        shape = self.shape
        outputs = shape.couplings * (self.past_steps + 1)
        activity_sum = 1
        rows = shape.states + shape.vascular + activity_sum + outputs
        return rows * shape.width

    def _steps_per_segment(self) -> int:
        """Few enough for the cache, many enough for the memory."""
        # The past is moved once per segment, which should cost little beside the steps.
        steps = max(LEAST_SEGMENT, 4 * self.past_steps)
        if self.form.gradient:
            size = self.checkpoint_width * self.dtype.itemsize * self.simulations
            steps = max(steps, self.run.steps * size // CHECKPOINT_BYTES)
        # Whole calls of the noise generator, which gives four steps at once.
        multiple_of_four = -(-steps // 4) * 4
        return int(min(self.run.steps, multiple_of_four))

    def _blocks(self) -> list[Block]:
        count = self.simulations
        size = SIMULATIONS_PER_BLOCK
        if self.threads > 1 and count < size * self.threads:
            # Smaller blocks, so that every thread has one.
            size = -(-count // self.threads)
        size = max(1, size)
        starts = range(0, count, size)
        return [
            Block(index, range(start, min(start + size, count)))
            for index, start in enumerate(starts)
        ]

    def segments_per_call(self, simulations: int) -> int:
        region_steps = self.segment * self.shape.regions * simulations
        return max(1, int(REGION_STEPS_PER_CALL / region_steps))

    # Arrays with rows of whole vectors.

    def zeros(self, *shape: int) -> np.ndarray:
        """Zeros that begin where a vector may be loaded."""
        # numpy promises less, so a few more elements leave room to begin later.
        count = math.prod(shape)
        raw = np.zeros(count + ALIGNMENT // self.dtype.itemsize, self.dtype)
        start = (-raw.ctypes.data % ALIGNMENT) // raw.itemsize
        return raw[start : start + count].reshape(shape)

    def padded(self, tensor: Tensor, *, with_edge: bool = False) -> np.ndarray:
        """A copy whose last axis is filled up to whole vectors, with zeros or with its
        last value."""
        values = tensor.detach().numpy()
        padded = self.zeros(*values.shape[:-1], self.shape.width)
        padded[..., : values.shape[-1]] = values
        if with_edge:
            # States and parameters of a real region: zeros might divide by zero.
            padded[..., values.shape[-1] :] = values[..., -1:]
        return padded

    def _inputs(self) -> dict[str, np.ndarray]:
        arguments = self.arguments
        # Products go along the rows of their second factor: with outputs that is the
        # transposed matrix, with gradients, and for delays, the matrix itself.
        weights = arguments["weights"].detach()
        inputs = {
            "forward_weights": self.padded(weights.mT.contiguous()),
            "backward_weights": self.padded(weights),
        }
        for name in ("x", "y", "past"):
            inputs[name] = self.padded(arguments[name], with_edge=True)
        if arguments.has("delays"):
            delays = arguments["delays"].detach()
            inputs["delay_part"] = self.padded(delays - torch.floor(delays))
        if arguments.has("stimulus"):
            inputs["stimulus"] = self.padded(arguments["stimulus"])
        if self.run.noise is not None:
            inputs["normals"] = self._normals(self.run.noise)
        return inputs

    def _normals(self, noise: Tensor) -> np.ndarray:
        """Noise that the caller brings, as (step, simulation, state, width)."""
        states_and_regions = self.run.start.neural.shape[1:]
        whole = noise.to(self.arguments["x"].dtype).expand(-1, -1, *states_and_regions)
        flat = whole.reshape(*noise.shape[:2], self.simulations, -1)
        return self.padded(flat.movedim(1, 2).contiguous())

    def _parameter(self, path: str) -> np.ndarray:
        """(1 or simulation, 1 or width)."""
        value = self._parameter_value(path)
        # What all regions share is read as one number, without padding.
        if self.shape.regional[self.form.parameters.index(path)]:
            return self.padded(value, with_edge=True)
        return np.array(value.detach().numpy(), self.dtype, order="C")

    def _parameter_value(self, path: str) -> Tensor:
        dt = self.run.dt
        time_steps = {
            "dt": dt,
            "root_dt": dt**0.5,
            "dt_v": dt * self.run.per_vascular,
        }
        if path in time_steps:
            return torch.tensor([[time_steps[path]]], dtype=self.arguments["x"].dtype)
        return self.arguments[path]

    def _whole_delays(self) -> np.ndarray:
        """Delays in whole steps (1 or simulation, region, width); empty without."""
        if not self.arguments.has("delays"):
            return np.empty(0, np.int64)
        whole = torch.floor(self.arguments["delays"].detach())
        return self.padded(whole).astype(np.int64)

    # One block.

    def workspace(self, block: Block) -> dict[str, np.ndarray]:
        """The arrays of a block, at the start of the run, by their names in the
        table."""
        shape, n = self.shape, len(block)
        arrays = {
            "x": self.zeros(n, shape.states, shape.width),
            "y": self.zeros(n, shape.vascular, shape.width),
            "activity_sum": self.zeros(n, shape.width),
            "received": self.zeros(n, shape.couplings, shape.width),
            "received_ahead": self.zeros(n, shape.couplings, shape.width),
            "outputs": self.zeros(self.output_slots, n, shape.couplings, shape.width),
            "kept_drive": self.zeros(shape.width),
        }
        for name in ("x", "y"):
            # In a block the simulation comes first: a call works on one after another.
            arrays[name][:] = self.inputs[name][:, block.of].transpose(1, 0, 2)
        past = self.inputs["past"][:, :, block.of]
        arrays["outputs"][: self.past_steps + 1] = oldest_first(past)
        if self.run.noise is not None:
            # From the block's first simulation on.
            arrays["normals"] = self.inputs["normals"][:, block.first :]
        elif self.form.noisy:
            steps = self.segment + SPARE_NOISE_STEPS
            arrays["normals"] = self.zeros(n, steps, shape.states, shape.width)
        if shape.delayed:
            arrays["delay_offset"] = self._delay_offsets(n)
        return arrays

    @property
    def output_slots(self) -> int:
        """Steps of outputs in memory: the past, the present, and with delays the
        segment."""
        # Without delays every step writes over the one before.
        slots = self.past_steps + 1
        if self.shape.delayed:
            slots += self.segment
        return slots

    def _delay_offsets(self, simulations: int) -> np.ndarray:
        """From a region's present output to that of the whole steps ago."""
        stride = simulations * self.shape.couplings_width
        # A step's outputs of all simulations of the block lie side by side.
        lanes = np.arange(self.shape.width)
        offsets = lanes - self.whole_delays * stride
        return np.ascontiguousarray(offsets, dtype=np.int32)

    def table(self, block: Block, arrays: dict[str, np.ndarray]) -> BlockTable:
        """The table of a block, without what only one of the passes needs."""
        table = BlockTable(self.form)
        self._set_sizes(table, block)
        self._set_strides(table, block)
        table.set_arrays(arrays)
        for name in SHARED_INPUTS:
            if name in self.inputs:
                table.set_arrays({name: self.inputs[name]})
        for path, value in self.parameters.items():
            table.set_parameter(path, value)
        return table

    def _set_sizes(self, table: BlockTable, block: Block) -> None:
        run = self.run
        low, high = philox_key(run.seed)
        table.set_sizes(
            first=block.first,
            noise_first=run.first,
            simulations=len(block),
            all_simulations=self.simulations,
            steps=run.steps,
            segment=self.segment,
            per_vascular=run.per_vascular,
            per_tr=run.per_tr,
            origin=run.start.step,
            seed_low=low,
            seed_high=high,
            past_steps=self.past_steps,
            hold=run.hold,
        )

    def _set_strides(self, table: BlockTable, block: Block) -> None:
        """How far apart things lie in memory, in numbers; 0 where there is only one."""
        shape = self.shape
        table.set_sizes(
            weights_stride=self._pair_stride("weights"),
            delay_stride=self._pair_stride("delays"),
            outputs_stride=len(block) * shape.couplings_width * shape.delayed,
            stimulus_row=self.simulations * shape.width,
            stimulus_simulation=shape.width,
        )
        if self.run.noise is not None:
            table.set_sizes(
                normals_are_drawn=0,
                normals_simulation=shape.states_width,
                normals_step=shape.states_width * self.simulations,
            )
        else:
            steps = self.segment + SPARE_NOISE_STEPS
            table.set_sizes(
                normals_are_drawn=1,
                normals_simulation=steps * shape.states_width,
                normals_step=shape.states_width,
            )

    def _pair_stride(self, name: str) -> int:
        if self.arguments.is_shared(name):
            return 0
        return self.shape.regions * self.shape.width

    # All blocks.

    def run_blocks(self, work: BlockWork, label: str, *, show: bool = False) -> None:
        """Every block once, threads side by side, in calls short enough for an
        interrupt to come through."""
        if self.threads == 1 or len(self.blocks) == 1:
            self._run_in_turn(work, label, show)
        else:
            self._run_in_threads(work, label, show)

    def _run_in_turn(self, work: BlockWork, label: str, show: bool) -> None:
        per_call = self.segments_per_call(len(self.blocks[0]))
        total = -(-self.segments // per_call) * len(self.blocks)
        # In the main thread, so that an interrupt comes through between two calls.
        calls = (None for block in self.blocks for _ in work(block))
        for _ in track(calls, label, total=total, show=show):
            pass

    def _run_in_threads(self, work: BlockWork, label: str, show: bool) -> None:
        is_interrupted = False

        def run_block(block: Block) -> None:
            for _ in work(block):
                if is_interrupted:
                    return

        with ThreadPoolExecutor(self.threads) as pool:
            futures = [pool.submit(run_block, block) for block in self.blocks]
            try:
                for future in track(futures, label, show=show):
                    future.result()
            except BaseException:
                # Leaving the pool waits for its threads: they end at their next call.
                is_interrupted = True
                _cancel(futures)
                raise


def _cancel(futures: list[Future[None]]) -> None:
    for future in futures:
        future.cancel()


def oldest_first(past: np.ndarray) -> np.ndarray:
    """From the past of a run (slot, coupling, simulation, width), newest first, to
    outputs in memory (slot, simulation, coupling, width)."""
    return past[::-1].transpose(0, 2, 1, 3)


def newest_first(outputs: np.ndarray) -> np.ndarray:
    """The inverse of `oldest_first`."""
    return outputs.transpose(0, 2, 1, 3)[::-1]
