"""The compiled engine: a run handed to machine code, block by block, inside one
autograd function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cingulum.progress import track
from cingulum.simulation.compiler import machine_code
from cingulum.simulation.compiler.given import KernelArguments
from cingulum.simulation.compiler.kernels import Kernel, kernel_of
from cingulum.simulation.compiler.lowering import CannotLower
from cingulum.simulation.compiler.parts import SLOTS
from cingulum.simulation.noise import key_of
from cingulum.simulation.state import Outcome, Run, SimulationState, diverged

BLOCK = 8
"""Simulations that share every load of a connection weight."""

CHECKPOINTS = 64 * 2**20
"""Bytes that checkpoints of all simulations together aim to stay below."""

PATIENCE = 2e7
"""Region-steps of one call into machine code: about a tenth of a second, so that an
interrupt is soon noticed."""


def run_compiled(run: Run, *, threads: int | None = None) -> Outcome:
    """Do the run in machine code. Raises CannotLower where the reference engine must be
    used.

    Raises ConvergenceError with the first step and region that diverge.
    """
    if not machine_code.available():
        raise CannotLower("this platform (llvmlite is not installed)")
    if run.start.neural.device.type != "cpu":
        raise CannotLower(
            f"tensors on {run.start.neural.device} (machine code is made for the CPU)"
        )
    if run.noise is not None and run.noise.requires_grad:
        raise CannotLower("a gradient of the noise itself")
    given = KernelArguments.of(run)
    kernel = kernel_of(given, machine_code.host())
    work = _Work(run, given, kernel, threads or torch.get_num_threads())
    bold, activity, x, y, past = _Simulate.apply(work, *given.tensors)
    batch, n = run.start.neural.shape[1:-1], run.start.neural.shape[-1]
    couplings = run.brain.mass.couplings
    end = SimulationState(
        x.reshape(-1, *batch, n),
        y.reshape(-1, *batch, n),
        run.start.step + run.steps,
        past.reshape(-1, couplings, *batch, n) if run.delays is not None else None,
    )
    return Outcome(bold.reshape(-1, *batch, n), activity.reshape(-1, *batch, n), end)


class _Work:
    """One run laid out for machine code: padded arrays, a table a block, and the loop
    over segments."""

    def __init__(
        self, run: Run, given: KernelArguments, kernel: Kernel, threads: int
    ) -> None:
        self.run, self.given, self.kernel, self.threads = run, given, kernel, threads
        self.shape, self.form = kernel.shape, kernel.form
        self.past = given["past"].shape[0] - 1
        self.dtype = np.float32 if self.shape.numbers.bits == 32 else np.float64
        self.segment = self._segment()
        self.segments = -(-run.steps // self.segment)
        self.kept: list[np.ndarray] = []

    def _segment(self) -> int:
        """Steps between checkpoints: few enough for the cache, many enough for the
        memory."""
        s, run = self.shape, self.run
        rows = s.states + s.vascular + 1 + s.couplings * (self.past + 1)
        size = rows * s.width * s.numbers.bytes * self.given.simulations
        least = max(
            64,
            4 * self.past,
            run.steps * size // CHECKPOINTS if self.form.gradient else 64,
        )
        return int(min(run.steps, -(-least // 4) * 4))

    def blocks(self) -> list[range]:
        count = self.given.simulations
        size = (
            BLOCK
            if self.threads == 1 or count >= BLOCK * self.threads
            else -(-count // self.threads)
        )
        return [
            range(i, min(i + size, count))
            for i in range(0, count, max(1, min(size, BLOCK)))
        ]

    # Arrays with rows of whole vectors.

    def array(self, *shape: int) -> np.ndarray:
        """Zeros that begin where a vector may be loaded."""
        count = int(np.prod(shape, dtype=int))
        raw = np.zeros(count + 64 // self.dtype().itemsize, self.dtype)
        start = (-raw.ctypes.data % 64) // raw.itemsize
        return raw[start : start + count].reshape(shape)

    def padded(self, tensor: Tensor, edge: bool = False) -> np.ndarray:
        """A copy whose last axis is filled up to whole vectors, with zeros or with its
        last value."""
        values = tensor.detach().numpy()
        found = self.array(*values.shape[:-1], self.shape.width)
        found[..., : values.shape[-1]] = values
        if edge:
            found[..., values.shape[-1] :] = values[..., -1:]
        return found

    def forward(self) -> dict[str, np.ndarray]:
        """Fill the shared arrays, run every block, and return what the run gives."""
        run, s, given = self.run, self.shape, self.given
        count = given.simulations
        self.shared = self._shared()
        self.result = {
            "bold": self.array(run.volumes, count, s.width),
            "activity": self.array(run.volumes, count, s.width),
            "x": self.array(s.states, count, s.width),
            "y": self.array(s.vascular, count, s.width),
            "past": self.array(self.past + 1, s.couplings, count, s.width),
        }
        self.saved = [np.empty(0, self.dtype)] * len(self.blocks())
        self._each(self._forward_block, "simulate")
        return self.result

    def _shared(self) -> dict[str, np.ndarray]:
        given, names = self.given, self.given.names
        weights = given["weights"]
        found = {
            "forward_weights": self.padded(weights.mT.contiguous()),
            "backward_weights": self.padded(weights),
            **{
                name: self.padded(given[name], edge=True) for name in ("x", "y", "past")
            },
        }
        if "delays" in names:
            delays = given["delays"].detach()
            whole = torch.floor(delays)
            found["delay_part"], self.whole = (
                self.padded(delays - whole),
                self.padded(whole).astype(np.int64),
            )
        if "stimulus" in names:
            found["stimulus"] = self.padded(given["stimulus"])
        if self.run.noise is not None:
            noise = self.run.noise.to(given["x"].dtype).expand(
                -1, -1, *self.run.start.neural.shape[1:]
            )
            noise = noise.reshape(noise.shape[0], noise.shape[1], given.simulations, -1)
            found["z"] = self.padded(noise.movedim(1, 2).contiguous())
        for path in self.form.parameters:
            found[path] = (
                self.padded(self._parameter(path), edge=True)
                if self._is_regional(path)
                else np.array(
                    self._parameter(path).detach().numpy(), self.dtype, order="C"
                )
            )
        return found

    def _is_regional(self, path: str) -> bool:
        return self.shape.regional[self.form.parameters.index(path)]

    def _parameter(self, path: str) -> Tensor:
        dt = self.run.dt
        own = {"dt": dt, "root_dt": dt**0.5, "dt_v": dt * self.run.per_vascular}
        return (
            torch.tensor([[own[path]]], dtype=self.given["x"].dtype)
            if path in own
            else self.given[path]
        )

    def _each(self, work: Callable[[int, range], Iterator[None]], label: str) -> None:
        """Every block once, threads side by side, in calls short enough for an
        interrupt to come through."""
        blocks = list(enumerate(self.blocks()))
        show = self.run.show_progress and label == "simulate"
        per_block = -(-self.segments // self._together(len(blocks[0][1])))
        if self.threads == 1 or len(blocks) == 1:
            steps = (None for i, block in blocks for _ in work(i, block))
            for _ in track(steps, label, total=per_block * len(blocks), show=show):
                pass
            return
        stop = False

        def whole(i: int, block: range) -> None:
            for _ in work(i, block):
                if stop:
                    return

        with ThreadPoolExecutor(self.threads) as pool:
            waiting = [pool.submit(whole, i, block) for i, block in blocks]
            try:
                for future in track(waiting, label, show=show):
                    future.result()
            except BaseException:
                stop = True
                for future in waiting:
                    future.cancel()
                raise

    def _together(self, simulations: int) -> int:
        """Segments of one call."""
        return max(1, int(PATIENCE / (self.segment * self.shape.regions * simulations)))

    # One block, forward.

    def _forward_block(self, index: int, block: range) -> Iterator[None]:
        s, n = self.shape, len(block)
        here = self._workspace(block)
        table = self._table(block, here)
        if self.form.gradient:
            size = (
                n
                * s.width
                * (s.states + s.vascular + 1 + s.couplings * (self.past + 1))
            )
            self.saved[index] = self.array(self.segments, size)
            self._set(table, saved=self.saved[index], saving=1)
        step = self._together(n)
        for start in range(0, self.segments, step):
            before = {
                name: here[name].copy() for name in ("x", "y", "driven", "outputs")
            }
            bad = self.kernel.call(
                "forward", table, start, min(start + step, self.segments)
            )
            if bad:
                self._report(block, here, table, before, start)
            yield
        x, y = (here[name].transpose(1, 0, 2) for name in ("x", "y"))
        self.result["x"][:, block], self.result["y"][:, block] = x, y
        self.result["past"][:, :, block] = here["outputs"][: self.past + 1].transpose(
            0, 2, 1, 3
        )[::-1]

    def _workspace(self, block: range) -> dict[str, np.ndarray]:
        """The arrays of a block, at the start of the run."""
        s, n = self.shape, len(block)
        slots = self.past + 1 + (self.segment if s.delayed else 0)
        made = {
            "x": self.array(n, s.states, s.width),
            "y": self.array(n, s.vascular, s.width),
            "driven": self.array(n, s.width),
            "received": self.array(n, s.couplings, s.width),
            "received_ahead": self.array(n, s.couplings, s.width),
            "outputs": self.array(slots, n, s.couplings, s.width),
            "kept_drive": self.array(s.width),
        }
        made["x"][:], made["y"][:] = (
            self.shared[name][:, block].transpose(1, 0, 2) for name in ("x", "y")
        )
        made["outputs"][: self.past + 1] = self.shared["past"][
            ::-1, :, block
        ].transpose(0, 2, 1, 3)
        if self.run.noise is None and self.form.noisy:
            made["z"] = self.array(n, self.segment + 8, s.states, s.width)
        return made

    def _table(self, block: range, here: dict[str, np.ndarray]) -> np.ndarray:
        run, s, n = self.run, self.shape, len(block)
        table = np.zeros(len(SLOTS) + 3 * len(self.form.parameters), np.int64)
        low, high = key_of(run.seed)
        one_each = self.given["weights"].shape[0] > 1
        sizes = {
            "first": block.start,
            "sims": n,
            "total": self.given.simulations,
            "steps": run.steps,
            "segment": self.segment,
            "inner": run.per_vascular,
            "outer": run.per_tr,
            "origin": run.start.step,
            "seed_low": low,
            "seed_high": high,
            "remembered": self.past,
            "weights_stride": s.regions * s.width if one_each else 0,
            "outputs_stride": n * s.couplings * s.width if s.delayed else 0,
            "z_step": s.states * s.width,
            "z_sim": (self.segment + 8) * s.states * s.width,
            "drawn": 1,
            "hold": run.hold,
            "stimulus_row": self.given.simulations * s.width,
            "stimulus_sim": s.width,
        }
        self._set(
            table,
            **sizes,
            **here,
            **{k: v for k, v in self.shared.items() if k in SLOTS and k not in here},
        )
        self._set(table, bold=self.result["bold"], activity=self.result["activity"])
        if run.noise is not None:
            z = self.shared["z"]
            row = s.states * s.width
            self._set(
                table,
                z=z[:, block.start :],
                drawn=0,
                z_sim=row,
                z_step=row * self.given.simulations,
            )
        if s.delayed:
            each = self.given["delays"].shape[0] > 1
            stride = n * s.couplings * s.width
            lanes = np.arange(s.width)
            here["delay_offset"] = np.ascontiguousarray(
                lanes - self.whole * stride, dtype=np.int32
            )
            self._set(
                table,
                delay_offset=here["delay_offset"],
                delay_stride=s.regions * s.width if each else 0,
            )
        for i, path in enumerate(self.form.parameters):
            value = self.shared[path]
            table[len(SLOTS) + 2 * i] = value.ctypes.data
            table[len(SLOTS) + 2 * i + 1] = value.shape[1] if value.shape[0] > 1 else 0
        return table

    @staticmethod
    def _set(table: np.ndarray, **values: Any) -> None:
        for name, value in values.items():
            if name in SLOTS:
                table[SLOTS.index(name)] = (
                    value.ctypes.data if isinstance(value, np.ndarray) else value
                )

    def _report(
        self,
        block: range,
        here: dict[str, np.ndarray],
        table: np.ndarray,
        before: dict,
        start: int,
    ) -> None:
        """The stretch once more, step by step, to name the first step and region that
        diverge."""
        for name, values in before.items():
            here[name][:] = values
        self._set(table, segment=1, saving=0)
        for step in range(start * self.segment, self.run.steps):
            if self.kernel.call("forward", table, step, step + 1):
                ok = np.isfinite(here["x"]).all(1) & np.isfinite(here["y"]).all(1)
                batch, n = self.run.start.neural.shape[1:-1], self.shape.regions
                whole = torch.ones(self.given.simulations, n, dtype=torch.bool)
                whole[block.start : block.stop] = torch.from_numpy(ok[:, :n])
                step = self.run.start.step + step + 1
                raise diverged(
                    self.run.brain, whole.reshape(*batch, n), step, self.run.dt
                )

    # One block, backward.

    def backward(self, gradients: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Gradients of every input, from those of every result; shapes as in `Given`,
        padded."""
        s, count = self.shape, self.given.simulations
        blocks = self.blocks()
        self.g = gradients
        self.found = {
            "x": self.array(s.states, count, s.width),
            "y": self.array(s.vascular, count, s.width),
            "past": self.array(self.past + 1, s.couplings, count, s.width),
            **{path: self.array(count, s.width) for path in self.form.wanted},
        }
        if self.form.stimulus_gradient:
            self.found["stimulus"] = self.array(*self.shared["stimulus"].shape)
        each = self.given["weights"].shape[0] > 1 or (
            "delays" in self.given.names and self.given["delays"].shape[0] > 1
        )
        self.pairs_each = each
        for name in ("weights", "delays"):
            if getattr(self.shape, f"{name}_gradient"):
                self.found[name] = self.array(
                    count if each else len(blocks), s.regions, s.width
                )
        self._each(self._backward_block, "gradient")
        return self.found

    def _backward_block(self, index: int, block: range) -> Iterator[None]:
        run, s, n, k = self.run, self.shape, len(block), self.segment
        here = self._workspace(block)
        slots = self.past + 1 + k
        pairs = {
            name: self.found[name][block.start if self.pairs_each else index :]
            for name in ("weights", "delays")
            if name in self.found
        }
        here |= {
            "outputs": self.array(slots, n, s.couplings, s.width),
            "saved": self.saved[index],
            "g_x": self.array(n, s.states, s.width),
            "g_y": self.array(n, s.vascular, s.width),
            "g_driven": self.array(n, s.width),
            "g_drive": self.array(n, s.width),
            "g_volume": self.array(n, s.width),
            "g_outputs": self.array(slots if s.delayed else 1, n, s.couplings, s.width),
            "kept_x": self.array(k, n, s.states, s.width),
            "kept_y": self.array(k, n, s.vascular, s.width),
            "kept_after": self.array(k, n, s.vascular, s.width),
            "kept_drive": self.array(k, n, s.width),
            "kept_received": self.array(k, n, s.couplings, s.width),
            "g_kept": self.array(k, n, s.couplings, s.width),
            "g_bold": self.g["bold"],
            "g_activity": self.g["activity"],
            **{f"g_{name}": value for name, value in pairs.items()},
        }
        if self.form.scheme == "heun":
            for name in ("kept_ahead", "kept_outputs_ahead", "g_kept_ahead"):
                here[name] = self.array(k, n, s.couplings, s.width)
        if self.form.stimulus_gradient:
            here["g_stimulus"] = self.found["stimulus"]
        here["g_x"][:], here["g_y"][:] = (
            self.g[name][:, block].transpose(1, 0, 2) for name in ("x", "y")
        )
        if s.delayed:
            last = run.steps - (self.segments - 1) * k
            end = here["g_outputs"][last : last + self.past + 1]
            end[:] = self.g["past"][::-1, :, block].transpose(0, 2, 1, 3)
        table = self._table(block, here)
        row = n * s.couplings * s.width
        self._set(
            table,
            outputs_stride=row,
            g_outputs_stride=row if s.delayed else 0,
            g_weights_stride=s.regions * s.width if self.pairs_each else 0,
        )
        for i, path in enumerate(self.form.wanted):
            table[len(SLOTS) + 2 * len(self.form.parameters) + i] = self.found[
                path
            ].ctypes.data
        step = max(1, self._together(n) // 4)
        for stop in range(self.segments, 0, -step):
            self.kernel.call("backward", table, max(0, stop - step), stop)
            yield
        self.found["x"][:, block] = here["g_x"].transpose(1, 0, 2)
        self.found["y"][:, block] = here["g_y"].transpose(1, 0, 2)
        self.found["past"][:, :, block] = here["g_outputs"][: self.past + 1].transpose(
            0, 2, 1, 3
        )[::-1]


RESULTS = ("bold", "activity", "x", "y", "past")


class _Simulate(torch.autograd.Function):
    """bold, activity, x, y, past ← machine code ← everything a run is given."""

    @staticmethod
    def forward(ctx: Any, work: _Work, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.work = work
        found, n = work.forward(), work.shape.regions
        return tuple(
            torch.from_numpy(np.ascontiguousarray(found[name][..., :n]))
            for name in RESULTS
        )

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        work: _Work = ctx.work
        found = work.backward(
            {name: work.padded(g) for name, g in zip(RESULTS, gradients, strict=True)}
        )
        return (
            None,
            *(
                _gradient(work, name, tensor, found)
                for name, tensor in zip(
                    work.given.names, work.given.tensors, strict=True
                )
            ),
        )


def _gradient(
    work: _Work, name: str, tensor: Tensor, found: dict[str, np.ndarray]
) -> Tensor | None:
    """What was found for an input, in its shape: summed over simulations and regions
    that share a value."""
    if name not in found or not tensor.requires_grad:
        return None
    g = torch.from_numpy(np.ascontiguousarray(found[name][..., : work.shape.regions]))
    return g.sum_to_size(tensor.shape) if g.shape != tensor.shape else g
