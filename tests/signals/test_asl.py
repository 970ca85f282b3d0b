"""From BIDS ASL to flow, all ways of M0 and labelling; and every gate, by name."""

import json

import numpy as np
import pandas as pd
import pytest

from cingulum.cli import main
from cingulum.errors import InputError
from cingulum.io.files import read_json, read_table, write_table
from cingulum.io.images import read_image, write_image
from cingulum.signals.asl import Constants, read_perfusion
from cingulum.signals.asl_kinetics import Kinetics

PLDS = [0.25, 0.5, 1.0, 1.5, 2.0, 2.5]
M0 = 4000.0


def flow_map(mask, f=60.0):
    return np.where(mask, f, 0.0)


def one_delay(mask, ratio=0.0075):
    return np.where(mask, ratio * M0, 0.0)[..., None]


def test_one_delay_is_the_consensus_equation_with_its_values(asl, brain_mask, tmp_path):
    visit = asl(
        tmp_path,
        one_delay(brain_mask),
        np.where(brain_mask, M0, 0),
        PostLabelingDelay=1.2,
        LabelingDuration=1.5,
    )
    found = read_perfusion(visit, Constants(t1b=1.664))
    np.testing.assert_allclose(found.cbf[found.mask], 6609.8 * 0.0075, rtol=1e-4)
    assert "6609.8·ΔM/M0" in found.equation and "exp(1.2/1.664)" in found.equation
    assert found.mask.sum() == pytest.approx(brain_mask.sum(), rel=0.15)
    assert any("short" in flag for flag in found.flags)


def test_consensus_reads_46_where_the_kinetic_truth_is_60(asl, brain_mask, tmp_path):
    ratio = float(Kinetics(False, 1.8, 0.85, 1.65, 1.33).difference(60.0, 0.8, 3.6))
    found = read_perfusion(
        asl(tmp_path, one_delay(brain_mask, ratio), np.where(brain_mask, M0, 0))
    )
    assert found.cbf[found.mask].mean() == pytest.approx(45.8, rel=0.02)


@pytest.mark.parametrize("labelling", ["PCASL", "PASL"])
def test_several_delays_return_flow_and_arrival(asl, brain_mask, tmp_path, labelling):
    pulsed = labelling == "PASL"
    model = Kinetics(
        pulsed, 0.8 if pulsed else 1.8, 0.98 if pulsed else 0.85, 1.65, 1.3
    )
    plds = [0.4, 0.8, 1.2, 1.6, 2.0, 2.4, 2.8] if pulsed else PLDS
    t = np.array(plds) + (0 if pulsed else 1.8)
    arrival = np.linspace(0.6, 1.4, brain_mask.shape[0])[:, None, None, None]
    differences = M0 * model.difference(flow_map(brain_mask)[..., None], arrival, t)
    times = np.repeat(plds, 2).tolist()
    fields = (
        {"BolusCutOffFlag": True, "BolusCutOffDelayTime": [0.8, 1.2]} if pulsed else {}
    )
    visit = asl(
        tmp_path,
        differences,
        np.where(brain_mask, M0, 0),
        ArterialSpinLabelingType=labelling,
        PostLabelingDelay=times,
        LabelingDuration=None if pulsed else 1.8,
        **fields,
    )
    found = read_perfusion(visit)
    np.testing.assert_allclose(
        found.cbf[found.mask], 60.0, rtol=5e-3
    )  # the file holds float32
    expected = np.broadcast_to(arrival[..., 0], brain_mask.shape)[found.mask]
    np.testing.assert_allclose(found.arrival[found.mask], expected, atol=5e-3)
    assert "Buxton et al. 1998" in found.equation


def test_later_slices_have_a_longer_delay(asl, brain_mask, tmp_path):
    """ΔM made with the true delay of every slice: flow comes out even, and uneven
    without the slice times."""
    slices = 0.045 * np.arange(brain_mask.shape[2])
    ratio = (
        60
        / 6000
        / 0.9
        * 2
        * 0.85
        * 1.65
        * (1 - np.exp(-1.8 / 1.65))
        * np.exp(-(1.8 + slices) / 1.65)
    )
    differences = np.where(brain_mask, M0 * ratio, 0)[..., None]
    m0 = np.where(brain_mask, M0, 0)
    timed = read_perfusion(
        asl(
            tmp_path / "a",
            differences,
            m0,
            MRAcquisitionType="2D",
            SliceTiming=slices.tolist(),
        )
    )
    np.testing.assert_allclose(timed.cbf[timed.mask], 60.0, rtol=1e-4)
    downwards = {"SliceTiming": slices[::-1].tolist(), "SliceEncodingDirection": "k-"}
    turned = read_perfusion(
        asl(tmp_path / "c", differences, m0, MRAcquisitionType="2D", **downwards)
    )
    np.testing.assert_allclose(turned.cbf, timed.cbf, rtol=1e-6)
    blind = read_perfusion(asl(tmp_path / "b", differences, m0, MRAcquisitionType="2D"))
    assert blind.cbf[blind.mask].min() < 48 and any(
        "SliceTiming missing" in flag for flag in blind.flags
    )


def included(asl, mask, folder):
    return asl(
        folder,
        one_delay(mask),
        np.where(mask, M0, 0),
        m0_type="Included",
        RepetitionTimePreparation=8.0,
    )


def estimate(asl, mask, folder):
    return asl(
        folder,
        one_delay(mask),
        np.where(mask, M0, 0),
        m0_type="Estimate",
        M0Estimate=M0,
    )


def absent(asl, mask, folder):
    """The control image stands for M0, corrected for its repetition time of 4.5 s: made
    so that it becomes M0."""
    control = M0 * (1 - np.exp(-4.5 / 1.3))
    return asl(
        folder,
        one_delay(mask),
        np.where(mask, M0, 0),
        m0_type="Absent",
        control=control,
    )


def short_tr(asl, mask, folder):
    m0 = np.where(mask, M0 * (1 - np.exp(-2.0 / 1.3)), 0)
    return asl(folder, one_delay(mask), m0, m0_tr=2.0)


@pytest.mark.parametrize(
    ("way", "flag"),
    [
        (included, ""),
        (estimate, "M0 is one number for the whole brain"),
        (absent, "M0 absent"),
        (short_tr, "M0 with a repetition time of 2 s"),
    ],
)
def test_every_way_of_m0_gives_the_same_flow(asl, brain_mask, tmp_path, way, flag):
    usual = read_perfusion(
        asl(tmp_path / "usual", one_delay(brain_mask), np.where(brain_mask, M0, 0))
    )
    found = read_perfusion(way(asl, brain_mask, tmp_path / "other"))
    assert found.cbf[found.mask].mean() == pytest.approx(
        usual.cbf[usual.mask].mean(), rel=2e-3
    )
    assert any(stated.startswith(flag) for stated in found.flags)


def test_suppression_pulses_cost_efficiency(asl, brain_mask, tmp_path):
    """.85·.95⁴, as ASLPrep takes it; a stated LabelingEfficiency stands as it is."""
    m0 = np.where(brain_mask, M0, 0)
    plain = read_perfusion(asl(tmp_path / "a", one_delay(brain_mask, 0.005), m0))
    fields = {"BackgroundSuppression": True, "BackgroundSuppressionNumberPulses": 4}
    pulses = read_perfusion(
        asl(tmp_path / "b", one_delay(brain_mask, 0.005), m0, **fields)
    )
    assert pulses.cbf.max() == pytest.approx(plain.cbf.max() / 0.95**4, rel=1e-5)
    unknown = read_perfusion(
        asl(
            tmp_path / "d", one_delay(brain_mask, 0.005), m0, BackgroundSuppression=True
        )
    )
    assert unknown.cbf.max() == pytest.approx(plain.cbf.max() / 0.95, rel=1e-5)
    assert any("one pulse assumed" in flag for flag in unknown.flags)
    stated = read_perfusion(
        asl(
            tmp_path / "c",
            one_delay(brain_mask, 0.005),
            m0,
            LabelingEfficiency=0.7,
            **fields,
        )
    )
    assert stated.cbf.max() == pytest.approx(plain.cbf.max() * 0.85 / 0.7, rel=1e-5)


def test_a_look_locker_readout_is_flagged(asl, brain_mask, tmp_path):
    found = read_perfusion(
        asl(
            tmp_path,
            one_delay(brain_mask),
            np.where(brain_mask, M0, 0),
            LookLocker=True,
        )
    )
    assert any("Look-Locker" in flag for flag in found.flags)


def test_delta_m_and_cbf_volumes_are_taken_as_the_context_says(
    asl, brain_mask, tmp_path
):
    """GE writes deltam or cbf instead of pairs."""
    m0 = np.where(brain_mask, M0, 0)
    usual = read_perfusion(asl(tmp_path / "a", one_delay(brain_mask), m0))
    visit = asl(
        tmp_path / "b",
        -np.stack([one_delay(brain_mask)[..., 0]], -1),
        m0,
        control=0,
        context=["n/a", "deltam"],
    )
    made = read_perfusion(visit)
    assert made.cbf[made.mask].mean() == pytest.approx(
        usual.cbf[usual.mask].mean(), rel=1e-4
    )
    visit = asl(
        tmp_path / "c",
        -flow_map(brain_mask, 55.0)[..., None],
        m0,
        control=0,
        context=["n/a", "cbf"],
    )
    assert read_perfusion(visit).cbf[brain_mask].mean() == pytest.approx(55.0, rel=1e-5)


def swapped(asl, mask, folder):
    return asl(
        folder, one_delay(mask), np.where(mask, M0, 0), context=["label", "control"]
    )


def gate(message, **fields):
    def write(asl, mask, folder):
        return asl(folder, one_delay(mask), np.where(mask, M0, 0), **fields)

    return pytest.param(write, message, id=message[:40])


@pytest.mark.parametrize(
    ("write", "message"),
    [
        gate("1800 looks like milliseconds", PostLabelingDelay=1800),
        gate("LabelingDuration must be 0 to 5 s", LabelingDuration=1800),
        gate("must give PostLabelingDelay in seconds", PostLabelingDelay=None),
        gate("must give LabelingDuration in seconds", LabelingDuration=None),
        gate("RepetitionTimePreparation is 0", RepetitionTimePreparation=0),
        gate(
            "must give RepetitionTimePreparation in seconds",
            RepetitionTimePreparation=None,
        ),
        gate("above 0 to 30 s", m0_tr=0),
        gate("above 0 to 30 s", m0_tr=None),
        gate("must give M0Type, one of", M0Type=None),
        gate(
            "control images are suppressed",
            m0_type="Absent",
            BackgroundSuppression=True,
        ),
        gate("M0Type is Included, but aslcontext names no m0scan", M0Type="Included"),
        gate("M0Estimate must be a number", M0Type="Estimate"),
        gate(
            "must give ArterialSpinLabelingType, one of CASL, PCASL, PASL",
            ArterialSpinLabelingType="pcasl",
        ),
        gate("PASL without bolus cut-off", ArterialSpinLabelingType="PASL"),
        gate(
            "needs BolusCutOffDelayTime",
            ArterialSpinLabelingType="PASL",
            BolusCutOffFlag=True,
        ),
        gate("names 3 volumes; the run has 2", context=["control", "label", "control"]),
        gate("aslcontext names tag", context=["control", "tag"]),
        gate("2 control, 0 label and no deltam", context=["control", "control"]),
        gate(
            "PostLabelingDelay has 3 values for 2 volumes",
            PostLabelingDelay=[1.8, 1.8, 1.8],
        ),
        gate(
            "SliceTiming has 2 values for 14 slices",
            MRAcquisitionType="2D",
            SliceTiming=[0, 0.1],
        ),
        gate(
            "is it in ms",
            MRAcquisitionType="2D",
            SliceTiming=[45.0 * i for i in range(14)],
        ),
        gate(
            "must be 0 to 10; got -1",
            BackgroundSuppression=True,
            BackgroundSuppressionNumberPulses=-1,
        ),
        gate(
            "LabelingEfficiency must be a number from 0.2 to 1", LabelingEfficiency=85
        ),
        pytest.param(swapped, "control and label look swapped", id="swapped"),
    ],
)
def test_gates(asl, brain_mask, tmp_path, write, message):
    with pytest.raises(InputError, match=message):
        read_perfusion(write(asl, brain_mask, tmp_path))


def test_m0_on_another_scale_is_named(asl, brain_mask, tmp_path):
    with pytest.raises(InputError, match="M0 is on another scale"):
        read_perfusion(
            asl(tmp_path / "a", one_delay(brain_mask), np.where(brain_mask, M0 / 32, 0))
        )
    with pytest.raises(InputError, match="mean CBF 1.62 is implausible"):
        read_perfusion(
            asl(tmp_path / "b", one_delay(brain_mask), np.where(brain_mask, M0 * 40, 0))
        )


def test_an_m0_scan_for_another_run_or_outside_the_dataset_is_not_taken(
    asl, brain_mask, tmp_path
):
    asl(tmp_path, one_delay(brain_mask), np.where(brain_mask, M0, 0))
    from cingulum.io.visit import visits

    sidecar = next(tmp_path.rglob("*_m0scan.json"))
    sidecar.write_text(
        json.dumps(
            {
                "RepetitionTimePreparation": 10,
                "IntendedFor": "ses-pre/perf/other_asl.nii.gz",
            }
        )
    )
    with pytest.raises(InputError, match="has no m0scan recording"):
        read_perfusion(visits(tmp_path)[0])
    sidecar.write_text(json.dumps({"IntendedFor": "../../../etc/passwd"}))
    with pytest.raises(InputError, match="leads out of the dataset"):
        visits(tmp_path)


def write_map(root, cbf, fields):
    folder = root / "derivatives" / "aslprep" / "sub-01" / "ses-pre" / "perf"
    stem = folder / "sub-01_ses-pre_space-MNI152NLin2009cAsym_cbf"
    affine = np.diag([6.0, 6.0, 6.0, 1.0])
    affine[:3, 3] = [-84, -120, -66]
    write_image(stem.with_suffix(".nii.gz"), cbf.astype(np.float32), affine)
    stem.with_suffix(".json").write_text(json.dumps(fields))
    (root / "dataset_description.json").write_text(
        '{"Name": "x", "BIDSVersion": "1.10.0"}'
    )
    from cingulum.io.visit import visits

    return visits(root)[0]


@pytest.mark.parametrize(
    ("level", "fields", "message"),
    [
        (0.0, {}, "zero everywhere"),
        (0.6, {}, "mean CBF 0.6 is implausible"),
        (50.0, {"Units": "%"}, "expected mL/100 g/min"),
        (2000.0, {}, "implausible"),
    ],
)
def test_cbf_maps_must_be_those_of_a_brain(tmp_path, level, fields, message):
    cbf = np.zeros((29, 35, 26))
    cbf[5:25, 5:30, 5:22] = level
    with pytest.raises(InputError, match=message):
        read_perfusion(write_map(tmp_path, cbf, fields))


def test_nan_outside_the_brain_and_unusual_flow_are_taken_and_flagged(tmp_path):
    cbf = np.full((29, 35, 26), np.nan)
    cbf[5:25, 5:30, 5:22] = 15.0
    found = read_perfusion(write_map(tmp_path, cbf, {"Units": "mL/100 g/min"}))
    assert found.mask.sum() == 20 * 25 * 17 and found.flags == (
        "mean CBF 15 is unusual (20 to 100 ml/100 g/min)",
    )


def test_raw_asl_becomes_a_table_and_maps(asl, brain_mask, tmp_path):
    """The whole way from a raw dataset: native space, so no regions; maps of flow and
    arrival, the equation beside."""
    model = Kinetics(False, 1.8, 0.85, 1.65, 1.3)
    differences = M0 * model.difference(
        flow_map(brain_mask)[..., None], 0.9, np.array(PLDS) + 1.8
    )
    asl(
        tmp_path / "raw",
        differences,
        np.where(brain_mask, M0, 0),
        PostLabelingDelay=np.repeat(PLDS, 2).tolist(),
    )
    out = tmp_path / "out"
    assert main(["features", str(tmp_path / "raw"), str(out), "--n-jobs", "1"]) == 0
    table = read_table(out / "features.tsv")
    assert table["cbf_whole_brain"][0] == pytest.approx(60, rel=5e-3) and np.isnan(
        table["cbf_S1_back_L"][0]
    )
    assert (
        "not motion-corrected" in table["flags"][0]
        and "need CBF in MNI space" in table["flags"][0]
    )
    flow, arrival = (
        read_image(next(out.rglob(f"*_{name}.nii.gz")), 3).get_fdata()
        for name in ("cbf", "att")
    )
    assert flow[flow > 0].mean() == pytest.approx(60, rel=5e-3)
    assert arrival[arrival > 0].mean() == pytest.approx(0.9, abs=5e-3)
    assert (
        "Buxton et al. 1998"
        in read_json(next(out.rglob("*_att.json")))["Details"]["Equation"]
    )
    assert set(read_json(out / "features.json")["Skipped"]) >= {
        "s1conn",
        "hrv",
        "fc",
        "mechanism",
    }


def test_a_single_volume_may_be_three_dimensional(asl, brain_mask, tmp_path):
    visit = asl(
        tmp_path,
        one_delay(brain_mask),
        np.where(brain_mask, M0, 0),
        context=["deltam", "n/a"],
    )
    usual = np.where(brain_mask, 0.0075 * M0, 0).astype(np.float32)
    write_image(visit["asl"], usual, read_image(visit["m0scan"], 3).affine)
    write_table(visit["aslcontext"], pd.DataFrame({"volume_type": ["deltam"]}))
    assert read_perfusion(visit).cbf[brain_mask].mean() == pytest.approx(64.7, rel=0.01)


def test_a_lost_volume_is_flagged_not_refused(asl, brain_mask, tmp_path):
    three = np.repeat(one_delay(brain_mask), 2, -1)
    visit = asl(
        tmp_path,
        three,
        np.where(brain_mask, M0, 0),
        context=["control", "label", "control", "n/a"],
    )
    found = read_perfusion(visit)
    assert any("2 control and 1 label" in flag for flag in found.flags)
    assert found.cbf[found.mask].mean() == pytest.approx(64.7, rel=0.01)


@pytest.mark.parametrize(
    "unit", ["mL/(100 g*min)", "ml/100 g/minute", "mL/100g tissue/min", "ml/min/100g"]
)
def test_units_are_understood_as_people_write_them(tmp_path, unit):
    cbf = np.zeros((29, 35, 26))
    cbf[5:25, 5:30, 5:22] = 50.0
    assert read_perfusion(write_map(tmp_path, cbf, {"Units": unit})).flags == ()


def test_the_maps_own_brain_mask_is_used(tmp_path):
    """Noise around the brain is not the brain: without its mask the mean would be a
    quarter."""
    cbf = np.random.default_rng(0).normal(0, 1, (29, 35, 26))
    cbf[5:25, 5:30, 5:22] = 50.0
    visit = write_map(tmp_path, cbf, {})
    mask = np.zeros(cbf.shape, np.uint8)
    mask[5:25, 5:30, 5:22] = 1
    path = visit["perfusion"].with_name(
        visit["perfusion"].name.replace("_cbf", "_desc-brain_mask")
    )
    write_image(path, mask, read_image(visit["perfusion"], 3).affine)
    from cingulum.io.visit import visits

    found = read_perfusion(visits(tmp_path)[0])
    assert (
        found.cbf[found.mask].mean() == pytest.approx(50)
        and found.mask.sum() == mask.sum()
    )


def test_noise_alone_is_no_perfusion(asl, brain_mask, tmp_path):
    """Six delays of pure noise read nil, which is refused, instead of a plausible
    60."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.003 * M0, (*brain_mask.shape, 6)) * brain_mask[..., None]
    noise -= noise.mean((0, 1, 2))
    visit = asl(
        tmp_path,
        noise,
        np.where(brain_mask, M0, 0),
        PostLabelingDelay=np.repeat(PLDS, 2).tolist(),
    )
    with pytest.raises(InputError, match="implausible|look swapped"):
        read_perfusion(visit)
