"""The layout of a run in memory, for the code that is written and for Python, which
fills it in.

Every array has rows of `width` numbers: the regions, padded to whole vectors. A table
of 64-bit numbers holds all sizes and addresses: first those named in `SLOTS`, then
address and stride of every parameter, then the address of every parameter's gradient.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cingulum.simulation.compiler.ir import Code, Integer, NumberType, Pointer
from cingulum.simulation.compiler.machine_code import Target
from cingulum.simulation.compiler.tracing import Form

SLOTS = """
first noise_first simulations all_simulations steps segment per_vascular per_tr origin
seed_low seed_high past_steps weights_stride forward_weights backward_weights
delay_offset delay_part delay_stride x y activity_sum received received_ahead outputs
outputs_stride normals normals_step normals_simulation normals_are_drawn stimulus
stimulus_row stimulus_simulation hold bold activity checkpoints save_checkpoints g_x g_y
g_activity_sum g_drive g_outputs g_outputs_stride g_bold g_activity g_volume kept_x
kept_y kept_after kept_drive kept_received kept_received_ahead kept_outputs_ahead
g_kept_received g_kept_received_ahead g_weights g_weights_stride g_delays g_stimulus
""".split()
"""Names of the table's first slots. `g_` marks the gradient of an array, `kept_` what
the adjoint keeps of every step of a segment, `_ahead` what Heun's scheme predicts."""


@dataclass(frozen=True)
class Shape:
    """Sizes that are part of the machine code.

    vascular: states of the haemodynamics
    regional: for every parameter, whether it has one value per region
    """

    regions: int
    states: int
    vascular: int
    couplings: int
    number_type: NumberType
    regional: tuple[bool, ...]
    delayed: bool
    weights_gradient: bool
    delays_gradient: bool

    @property
    def vectors(self) -> int:
        """Vectors that hold all regions."""
        return -(-self.regions // self.number_type.lanes)

    @property
    def width(self) -> int:
        """Numbers in a row."""
        return self.vectors * self.number_type.lanes

    @property
    def states_width(self) -> int:
        """Numbers in the neural states of one simulation."""
        return self.states * self.width

    @property
    def vascular_width(self) -> int:
        """Numbers in the haemodynamic states of one simulation."""
        return self.vascular * self.width

    @property
    def couplings_width(self) -> int:
        """Numbers in the outputs of one simulation, or in what it receives."""
        return self.couplings * self.width


@dataclass(frozen=True, eq=False)
class KernelSpec:
    """What the functions of one kernel are written for.

    arguments: for every pointwise function, the arrays that it is given, in order
    """

    form: Form
    shape: Shape
    target: Target
    arguments: dict[str, tuple[str, ...]]

    @property
    def is_heun(self) -> bool:
        return self.form.scheme == "heun"


def parameter_slot(form: Form, path: str) -> int:
    """Where the table has a parameter's address; its stride comes next."""
    return len(SLOTS) + 2 * form.parameters.index(path)


def gradient_slot(form: Form, path: str) -> int:
    """Where the table has the address of a parameter's gradient."""
    # Parameters have two slots each, gradients one: their rows all have one width.
    behind_parameters = len(SLOTS) + 2 * len(form.parameters)
    return behind_parameters + form.wanted.index(path)


def table_length(form: Form) -> int:
    return len(SLOTS) + 2 * len(form.parameters) + len(form.wanted)


# Code that reads the table, whose address every function has as its argument A.


def table_integer(code: Code, index: int) -> Integer:
    slot = Pointer(code, "%A", "i64").at(index)
    # The table does not change during a call, so that the optimiser may read it once.
    return code.integer(f"load i64, ptr {slot}, !invariant.load !{{}}")


def table_pointer(code: Code, index: int) -> Pointer:
    address = table_integer(code, index)
    # Addresses are numbers in Python.
    name = code.assign(f"inttoptr i64 {address} to ptr")
    return Pointer(code, name, code.number_type.scalar)


def table_sizes(code: Code, names: Iterable[str]) -> dict[str, Integer]:
    return {name: table_integer(code, SLOTS.index(name)) for name in names}


def table_arrays(code: Code, names: Iterable[str]) -> dict[str, Pointer]:
    return {name: table_pointer(code, SLOTS.index(name)) for name in names}
