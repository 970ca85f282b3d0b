"""The promise: what is declared in one file goes through every command and report.

Here a feature, its kind of recording, a reader, a mass with two couplings and an
objective are declared in a test, and no file of the package knows of them.
"""

import gzip
import json
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from torch.distributions import LogNormal

from cingulum import fit, simulate
from cingulum.brain import Brain, Connectome, Sensor
from cingulum.brain.dynamics import Dynamics, State, param
from cingulum.cli import main
from cingulum.errors import InputError
from cingulum.features import Feature, Measurement, Role, register_feature, registry
from cingulum.io import recording_kinds
from cingulum.io.recording_kinds import RecordingKind, register_recording_kind
from cingulum.io.visit import visits
from cingulum.signals.heartbeat import read_physio
from cingulum.signals.visit_data import Reader, VisitData

RATE = 25.0

SKIN_CONDUCTANCE = RecordingKind(
    "skin_conductance",
    {"suffix": "physio", "extension": ".tsv.gz"},
    columns=("skin_conductance", "eda", "scl", "gsr"),
)


def read_skin_conductance(data):
    """The signal in microsiemens, (time,)."""
    path = data.visit[SKIN_CONDUCTANCE.name]
    recording = read_physio(path, data.visit.metadata(SKIN_CONDUCTANCE.name))
    signal = recording.signal(SKIN_CONDUCTANCE.columns)
    if not np.isfinite(signal).all():
        raise InputError(f"{path}: skin conductance has gaps.")
    return signal


SIGNAL = Reader("skin conductance", read_skin_conductance)


class SkinConductanceLevel(Feature):
    """Mean skin conductance."""

    name = "scl"
    label = "Skin conductance level"
    summary = "mean skin conductance (µS)"
    unit = "µS"
    meaning = "mean skin conductance"
    needs = (SKIN_CONDUCTANCE,)
    file = "func/{visit}_desc-scl_physio.tsv"
    role = Role.PREDICTOR
    colour = "#c08a1e"
    caution = "Skin conductance depends on the temperature of the room."
    references = (
        "@article{boucsein2012,\n"
        "  author = {Boucsein, W. and others},\n"
        "  year = {2012},\n"
        "  title = {{Publication recommendations for electrodermal measurements}},\n"
        "  journal = {Psychophysiology 49, 1017–1034},\n"
        "  doi = {10.1111/j.1469-8986.2012.01384.x}\n"
        "}\n",
    )

    def measure(self, data: VisitData) -> Measurement:
        return Measurement(np.array([data.get(SIGNAL).mean()]))

    @classmethod
    def methods_text(cls, recipe):
        return "Skin conductance: mean over the recording (Boucsein et al. 2012)."


@pytest.fixture
def registered():
    register_recording_kind(SKIN_CONDUCTANCE)
    register_feature(SkinConductanceLevel)
    yield
    registry._REGISTERED.pop(SkinConductanceLevel.name)
    recording_kinds._REGISTERED.pop(SKIN_CONDUCTANCE.name)


@pytest.fixture
def recorded(own_cohort):
    """Skin conductance of every visit, planted: beside the pulse in one file, and for
    the first participant in a file of its own. Returns the dataset and the levels."""
    rng = np.random.default_rng(0)
    levels = {}
    for visit in visits(own_cohort):
        level = rng.uniform(2, 12)
        levels[visit.key] = level
        cardiac = visit["cardiac"]
        sidecar = cardiac.with_name(cardiac.name.replace(".tsv.gz", ".json"))
        fields = json.loads(sidecar.read_text())
        signals = pd.read_csv(cardiac, sep="\t", header=None)
        conductance = level + rng.normal(0, 0.1, len(signals))
        if visit.participant == "01":
            name = f"{visit.name}_task-rest_recording-eda_physio"
            fields = {**fields, "Columns": ["EDA"]}
            signals = pd.DataFrame(conductance)
        else:
            name = cardiac.name.removesuffix(".tsv.gz")
            fields = {**fields, "Columns": [*fields["Columns"], "skin_conductance"]}
            signals[len(signals.columns)] = conductance
        text = signals.to_csv(sep="\t", header=False, index=False)
        with gzip.open(cardiac.with_name(f"{name}.tsv.gz"), "wt") as stream:
            stream.write(text)
        cardiac.with_name(f"{name}.json").write_text(json.dumps(fields))
    return own_cohort, levels


def test_a_feature_with_its_recording_goes_through_everything(
    registered, recorded, tmp_path, capsys
):
    dataset, levels = recorded
    one_process = ["--n-jobs", "1"]

    # The table, with values as they were planted.
    table_folder = tmp_path / "table"
    command = ["features", str(dataset), str(table_folder), "--features", "scl"]
    assert main([*command, *one_process]) == 0
    table = pd.read_csv(table_folder / "features.tsv", sep="\t", dtype=str)
    for row in table.itertuples():
        key = (row.participant_id.removeprefix("sub-"), row.session_id[4:])
        assert float(row.scl) == pytest.approx(levels[key], abs=0.02)
    description = json.loads((table_folder / "features.json").read_text())
    assert description["scl"]["Units"] == "µS"

    # The study: prediction, words, references, figures, pages.
    out = tmp_path / "study"
    command = ["run", str(dataset), str(out), "group", "--permutations", "19"]
    assert main([*command, *one_process, "--modalities", "scl", "hfhrv"]) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert set(summary["prediction"]) >= {"scl", "hfhrv", "fused"}
    assert summary["evaluation"]["fused"] == ["scl", "hfhrv"]
    assert any("Boucsein" in paragraph for paragraph in summary["methods"])
    texts = [warning["text"] for warning in summary["warnings"]]
    assert SkinConductanceLevel.caution in texts
    assert "Skin conductance level, µS" in summary["visits"]
    assert "@article{boucsein2012," in (out / "references.bib").read_text()
    report = (out / "report.html").read_text()
    assert "Skin conductance level" in report and "ref-boucsein2012" in report
    assert "mean skin conductance" in (out / "sub-02.html").read_text()

    # Help, status, and the error for a name that is nearly right.
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["features", "--help"])
    assert "mean skin conductance (µS)" in capsys.readouterr().out
    assert main(["status", str(out)]) == 0
    assert "scl" in capsys.readouterr().out
    assert main([*command, "--modalities", "slc"]) == 4
    assert "Did you mean scl?" in capsys.readouterr().err


def test_a_visit_without_the_recording_is_told_by_name(
    registered, own_cohort, tmp_path
):
    """No visit has skin conductance: the feature is refused, with what it reads."""
    plain = ["features", str(own_cohort), str(tmp_path / "out"), "--n-jobs", "1"]
    assert main([*plain, "--features", "scl"]) in (3, 4)


def test_a_feature_must_declare_its_facts():
    class Unfinished(SkinConductanceLevel):
        name = "unfinished"
        label: str

    class Nameless(Feature):
        def measure(self, data):
            raise NotImplementedError

    with pytest.raises(ValueError, match="must declare name, label, summary"):
        register_feature(Nameless)
    assert issubclass(Unfinished, Feature)


@dataclass(frozen=True)
class TwoRates(Dynamics):
    """Two linear populations; regions send the one to the other over two couplings."""

    tau: float = param(0.1, "s", 0.01, 1.0, "time constant")
    gain: float = param(0.5, "1", 0.0, 1.0, "gain of what arrives")

    states: ClassVar = (State("a", 0.0), State("b", 0.0))
    couplings: ClassVar = 2

    def drift(self, x, u):
        a, b = x
        to_a, to_b = u
        return torch.stack(
            [(-a + self.gain * to_a) / self.tau, (-b + self.gain * to_b) / self.tau]
        )

    def output(self, x):
        a, b = x
        return torch.stack([b, a])

    def activity(self, x):
        return x[0]


def two_rates_brain(**options):
    rng = torch.Generator().manual_seed(0)
    weights = torch.rand(5, 5, generator=rng)
    connectome = Connectome(weights + weights.T, tuple("abcde"))
    weights = connectome.weights.clone().fill_diagonal_(0)
    connectome = Connectome(weights, tuple("abcde")).normalised()
    return Brain(TwoRates(), connectome, Sensor(tr=1.0), noise=0.02, **options)


def test_a_mass_with_two_couplings_is_simulated_and_fitted():
    brain = two_rates_brain(strength=0.5)
    compiled = simulate(brain, 20.0, dt=0.01, seed=1, engine="compiled").bold.data
    plain = simulate(brain, 20.0, dt=0.01, seed=1, engine="reference").bold.data
    torch.testing.assert_close(compiled, plain)

    recorded = simulate(brain, 600.0, dt=0.01, seed=2).bold
    fitted = fit(
        brain,
        recorded,
        {"strength": LogNormal(-1.5, 0.5)},
        objective={fc_distance: 1.0},
        steps=30,
    )
    assert "fc_distance" in fitted.history
    assert torch.isfinite(fitted.estimates["strength"]).all()


def fc_distance(model, recorded):
    """An objective of one's own: mean squared difference of connectivity."""
    return (model.fc - recorded.fc).square().mean((-2, -1))
