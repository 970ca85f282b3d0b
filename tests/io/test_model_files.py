"""A brain as files, and back: the same bits, run the same way."""

import json
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch

from cingulum import read_brain, write_brain
from cingulum.brain import Brain, Connectome, Sensor, masses
from cingulum.brain.dynamics import Dynamics, State, param
from cingulum.brain.haemodynamics import CONVENTIONS, Amplifier
from cingulum.brain.leadfield import electrode_cap, sphere_leadfield
from cingulum.errors import InputError
from cingulum.simulation import simulate

N = 5


@dataclass(frozen=True, eq=False)
class OwnMass(Dynamics):
    """Decay, as a user writes it."""

    tau: float = param(0.1, "s", 0.01, 1.0, "time constant")
    states: ClassVar = (State("x", 0.0),)

    def drift(self, x, u):
        return (u - x) / self.tau

    def output(self, x):
        return x[:1]


def connectome(dtype=torch.float64, lengths=True):
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(N, N, generator=generator, dtype=dtype)
    far = 100 * torch.rand(N, N, generator=generator, dtype=dtype)
    names = ("left A", "B", "Ünder", "=1+1", "5")
    return Connectome(weights, names, far + far.T if lengths else None)


def regional(mass, dtype=torch.float64):
    """A mass whose first parameter differs between regions."""
    name = next(iter(mass.__dataclass_fields__))
    value = getattr(mass, name)
    factors = torch.linspace(0.98, 1.02, N, dtype=dtype) / 3 * 3
    return type(mass)(**{name: value * factors})


def brains():
    for name in masses.__all__:
        mass = regional(getattr(masses, name)())
        yield name, Brain(mass, connectome(), strength=0.1 / 3, noise=1e-3, speed=7.7)
    convention = CONVENTIONS["tvb-2.10-balloon"]
    single = connectome(torch.float32, lengths=False)
    mass = regional(masses.ReducedWongWang(), torch.float32)
    yield "float32", Brain(mass, single, Sensor(convention, 2.0, noise=0.25))


@pytest.mark.parametrize(("name", "brain"), brains())
@pytest.mark.filterwarnings("ignore")
def test_written_and_read_it_runs_to_the_same_bits(tmp_path, name, brain):
    write_brain(brain, tmp_path / "model", label="fit", provenance={"Seed": 3})
    again = read_brain(tmp_path / "model")
    settings = {"dt": 1e-3, "seed": 1, "start": brain.resting_state()}
    one = simulate(brain, 3.0, **settings).signal
    other = simulate(again, 3.0, **settings).signal
    assert one.data.dtype == other.data.dtype
    assert torch.equal(one.data, other.data)
    assert again.regions == brain.regions


def test_a_cap_of_electrodes(tmp_path):
    electrodes, names = electrode_cap()
    places = torch.nn.functional.normalize(torch.randn(N, 3), dim=1) * 70.0
    leadfield = sphere_leadfield(places, electrodes)
    sensor = Sensor(Amplifier(), 0.002, "µV", 0.1, leadfield, names)
    brain = Brain(masses.JansenRit(), connectome(), sensor, noise=1.0)
    write_brain(brain, tmp_path / "eeg")
    again = read_brain(tmp_path / "eeg")
    assert torch.equal(again.sensor.leadfield, brain.sensor.leadfield)
    assert again.sensor.channels == brain.sensor.channels
    assert again.sensor.unit == "µV"


@pytest.fixture
def written(tmp_path):
    brain = Brain(masses.Hopf(), connectome())
    write_brain(brain, tmp_path / "model")
    return tmp_path / "model"


def changed(written, change):
    path = written / "param" / "desc-model_param.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("Parameters"), "expected an object Parameters"),
        (lambda c: c["Parameters"].update({"mass.colour": 3.0}), "colour"),
        (lambda c: c["Parameters"].update({"noise": "much"}), "noise must be"),
        (
            lambda c: c["Parameters"].update(
                {"noise": {"DataType": "float64", "Values": ["x"]}}
            ),
            "noise holds no numbers",
        ),
        (
            lambda c: c["Parameters"].update({"noise": {"DataType": "object"}}),
            "float32 or float64",
        ),
        (lambda c: c["Sensor"].pop("RepetitionTime"), "sampling interval|tr"),
    ],
)
def test_damaged_parameters_are_named(written, change, message):
    changed(written, change)
    with pytest.raises(InputError, match=message):
        read_brain(written)


def test_a_model_of_another_name_is_refused_and_may_be_given(written):
    path = written / "eq" / "desc-model_eq.json"
    path.write_text(path.read_text().replace('"Hopf"', '"os.system"'))
    with pytest.raises(InputError, match="'os.system' is not known.*models="):
        read_brain(written)


def test_a_mass_of_the_users_own(tmp_path):
    brain = Brain(OwnMass(), connectome())
    write_brain(brain, tmp_path / "own")
    with pytest.raises(InputError, match="OwnMass"):
        read_brain(tmp_path / "own")
    assert isinstance(read_brain(tmp_path / "own", [OwnMass]).mass, OwnMass)


def test_folders_that_hold_something_and_batches_are_refused(tmp_path, written):
    brain = Brain(masses.Hopf(), connectome())
    with pytest.raises(InputError):
        write_brain(brain, written)
    weights = torch.rand(2, N, N)
    batch = Brain(masses.Hopf(), Connectome(weights, tuple("abcde")))
    with pytest.raises(InputError, match="one by one"):
        write_brain(batch, tmp_path / "batch")
    assert not (tmp_path / "batch").exists()


def test_the_layout_is_that_of_the_proposal(written):
    files = {path.relative_to(written).as_posix() for path in written.rglob("*.*")}
    assert files == {
        "dataset_description.json",
        "net/desc-model_net-weights.tsv",
        "net/desc-model_net-weights.json",
        "net/desc-model_net-distances.tsv",
        "net/desc-model_net-distances.json",
        "eq/desc-model_eq.json",
        "param/desc-model_param.json",
    }
    sidecar = json.loads((written / "net/desc-model_net-weights.json").read_text())
    assert sidecar["NumberOfRows"] == sidecar["NumberOfColumns"] == N
    equations = json.loads((written / "eq/desc-model_eq.json").read_text())
    assert equations["Model"]["Parameters"]["frequency"]["Units"] == "Hz"


@pytest.mark.parametrize(
    "times", [500, pytest.param(10_000, marks=pytest.mark.slow)], ids=str
)
def test_mutated_parameters(written, times):
    """Three changed bytes in the JSON: one kind of error, or a brain."""
    path = written / "param" / "desc-model_param.json"
    original = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(times):
        damaged = bytearray(original)
        for place in rng.integers(0, len(damaged), 3):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read_brain(written)
        except InputError:
            refused += 1
    assert refused > times / 2
