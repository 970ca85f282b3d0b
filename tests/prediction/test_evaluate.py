"""Paired evaluation against loops written out, and what bad input meets."""

import itertools

import numpy as np
import pytest
from sklearn.svm import SVC

from cingulum.errors import InputError
from cingulum.prediction import difference, evaluate, evaluate_ratings
from cingulum.prediction.compiled_statistics import mirrored_auc
from cingulum.prediction.paired_evaluation import TIE
from cingulum.prediction.permutation import sign_flips
from cingulum.prediction.statistics import accuracy

NAMES = [f"sub-{i:02d}" for i in range(40)]


def cohort(n, widths, effect=0.6, seed=0):
    rng = np.random.default_rng(seed)
    values = {f"m{k}": rng.normal(size=(n, 2, p)) for k, p in enumerate(widths)}
    for v in values.values():
        v[:, 1] += effect / np.sqrt(v.shape[2])
    return values


def weights(d, C=1.0):
    return (
        SVC(kernel="linear", C=C, tol=1e-9)
        .fit(np.concatenate([d, -d]), np.repeat([1, 0], len(d)))
        .coef_[0]
    )


def plain(differences, parts, C=1.0):
    """Nested leave-one-patient-out in scikit-learn: decisions of every modality and of
    the stacked fusion."""
    n = len(parts)
    decisions = {name: np.zeros(n) for name in (*differences, "fused")}
    for i in range(n):
        train = np.delete(np.arange(n), i)
        inside = np.zeros((n, len(differences)))
        for m, (name, d) in enumerate(differences.items()):
            decisions[name][i] = d[i] @ weights(d[train], C)
            for k in range(parts.max() + 1):
                judged = train[parts[train] == k]
                if len(judged):
                    inside[judged, m] = d[judged] @ weights(
                        d[train[parts[train] != k]], C
                    )
        outer = np.array([decisions[name][i] for name in differences])
        decisions["fused"][i] = outer @ weights(inside[train], C)
    return decisions


def statistic(decisions):
    return accuracy(decisions) + TIE * mirrored_auc(decisions[None])[0]


def check_against_plain(seed, widths, n):
    values = cohort(n, widths, seed=seed)
    evaluation = evaluate(
        values, NAMES[:n], permutations=0, seed=seed, inner_folds=3, contributions=False
    )
    expected = plain(
        {name: v[:, 1] - v[:, 0] for name, v in values.items()}, evaluation.parts
    )
    for name, decisions in expected.items():
        scale = np.abs(decisions).max()
        np.testing.assert_allclose(
            evaluation.scores[name].decisions, decisions, atol=2e-3 * scale
        )
        clear = np.abs(decisions) > 2e-3 * scale
        assert (np.sign(decisions) == np.sign(evaluation.scores[name].decisions))[
            clear
        ].all()


@pytest.mark.parametrize("seed", range(4))
def test_equals_a_plain_loop(seed):
    rng = np.random.default_rng(seed)
    check_against_plain(seed, (int(rng.integers(2, 40)), 1), 12)


@pytest.mark.slow
def test_equals_a_plain_loop_on_two_hundred_cohorts():
    """Accuracy and decisions; modalities of 1 to 60 features, 10 to 16 patients."""
    for seed in range(200):
        rng = np.random.default_rng(1000 + seed)
        check_against_plain(
            seed, rng.integers(1, 60, size=2).tolist(), int(rng.integers(10, 17))
        )


def test_p_values_equal_brute_force():
    """The same flips, each refitted with scikit-learn, for a modality, the fusion and a
    contribution."""
    n, m = 10, 19
    values = cohort(n, (6, 2), seed=3)
    evaluation = evaluate(values, NAMES[:n], permutations=m, seed=3, inner_folds=2)
    d = {name: v[:, 1] - v[:, 0] for name, v in values.items()}
    signs = sign_flips(m, n, np.random.default_rng((3, 0, 1)))
    reached = {name: statistic(x) for name, x in plain(d, evaluation.parts).items()}
    null = {name: [] for name in reached}
    alone = []
    for s in signs:
        for name, x in plain(
            {k: v * s[:, None] for k, v in d.items()}, evaluation.parts
        ).items():
            null[name].append(statistic(x))
        alone.append(
            statistic(
                plain({"m0": d["m0"] * s[:, None], "m1": d["m1"]}, evaluation.parts)[
                    "fused"
                ]
            )
        )
    for name, target in reached.items():
        assert evaluation.scores[name].p == pytest.approx(
            (1 + np.sum(np.array(null[name]) >= target - 1e-9)) / (m + 1)
        )
    assert evaluation.contributions["m0"].p == pytest.approx(
        (1 + np.sum(np.array(alone) >= reached["fused"] - 1e-9)) / (m + 1)
    )


def test_p_approaches_that_of_all_sign_flips():
    """All 2⁸ flips enumerated; 2000 drawn ones within four binomial standard errors
    (false alarm 6 in 100,000)."""
    values = cohort(8, (3,), effect=1.5, seed=1)
    evaluation = evaluate(
        values, NAMES[:8], permutations=2000, inner_folds=2, force=True
    )
    d = values["m0"][:, 1] - values["m0"][:, 0]

    def flipped(s):
        e = d * np.array(s)[:, None]
        return statistic(
            np.array([e[i] @ weights(np.delete(e, i, 0)) for i in range(8)])
        )

    every = np.array([flipped(s) for s in itertools.product([-1.0, 1.0], repeat=8)])
    exact = np.mean(every >= every[-1] - 1e-9)
    assert evaluation.scores["m0"].p == pytest.approx(
        exact, abs=4 * np.sqrt(exact * (1 - exact) / 2000) + 1e-3
    )


def test_tuned_penalties_are_chosen_inside():
    """The penalty of every fold, from its inner accuracy alone, written out."""
    values, grid = cohort(12, (5,), effect=1.0, seed=2), (1e-3, 1.0)
    evaluation = evaluate(values, NAMES[:12], permutations=0, inner_folds=3, C=grid)
    d, parts = values["m0"][:, 1] - values["m0"][:, 0], evaluation.parts
    for i in range(12):
        train = np.delete(np.arange(12), i)
        reached = []
        for C in grid:
            inside = [
                d[j] @ weights(d[train[parts[train] != parts[j]]], C) for j in train
            ]
            reached.append(accuracy(np.array(inside)))
        expected = d[i] @ weights(d[train], grid[int(np.argmax(reached))])
        assert evaluation.scores["m0"].decisions[i] == pytest.approx(expected, abs=1e-4)


def test_scaling_and_confounds_are_fitted_to_training_patients():
    rng = np.random.default_rng(4)
    n = 14
    values = {"a": rng.normal(size=(n, 2, 6)) * np.array([1, 5, 20, 0.1, 3, 2])}
    motion = rng.normal(size=(n, 2))
    values["a"] += motion[..., None] * np.arange(6)
    evaluation = evaluate(
        values,
        NAMES[:n],
        permutations=0,
        inner_folds=2,
        scale=("a",),
        confounds={"motion": motion},
    )
    d, c = values["a"][:, 1] - values["a"][:, 0], motion[:, 1] - motion[:, 0]
    for i in range(n):
        train = np.delete(np.arange(n), i)
        slope = c[train] @ d[train] / (c[train] @ c[train])
        left = d - np.outer(c, slope)
        left = left / np.sqrt(np.square(left[train]).mean(0))
        assert evaluation.scores["a"].decisions[i] == pytest.approx(
            left[i] @ weights(left[train]), rel=1e-3, abs=1e-4
        )


def test_kernel_fusion_is_one_machine_on_aligned_kernels():
    values = cohort(11, (4, 7), effect=3.0, seed=5)
    evaluation = evaluate(
        values, NAMES[:11], permutations=0, inner_folds=2, fusion="kernels"
    )
    d = [v[:, 1] - v[:, 0] for v in values.values()]
    for i in range(11):
        train, blocks, agree = np.delete(np.arange(11), i), [], []
        for x in d:
            k = x[train] @ x[train].T
            apart = k - np.diag(np.diag(k))
            agree.append(max(0.0, apart.sum() / np.sqrt(np.square(apart).sum())))
            blocks.append(x / np.sqrt(np.diag(k).mean()))
        share = np.array(agree) / sum(agree)
        x = np.concatenate(
            [np.sqrt(w) * b for w, b in zip(share, blocks, strict=True)], 1
        )
        assert evaluation.scores["fused"].decisions[i] == pytest.approx(
            x[i] @ weights(x[train]), rel=1e-3, abs=1e-4
        )


def test_log_odds_add_and_bear_missing_modalities():
    values = cohort(20, (4, 1), effect=1.2, seed=6)
    values["m1"][[2, 9]] = np.nan
    kept = evaluate(values, NAMES[:20], permutations=19, missing="log_odds")
    assert (
        kept.fusion == "log_odds" and kept.missing == {"m1": 2} and kept.dropped == []
    )
    assert (
        np.isnan(kept.scores["m1"].decisions[[2, 9]]).all()
        and np.isfinite(kept.scores["fused"].decisions).all()
    )
    own = kept.scores["m0"].decisions[[2, 9]]
    assert (np.sign(kept.scores["fused"].decisions[[2, 9]]) == np.sign(own)).all()
    complete = evaluate(values, NAMES[:20], permutations=19)
    assert complete.dropped == [NAMES[2], NAMES[9]] and len(complete.patients) == 18


def test_early_stopping_looks_at_as_many_permutations_as_it_needs():
    values = cohort(12, (5,), effect=0.0, seed=7)
    full = evaluate(values, NAMES[:12], permutations=600, inner_folds=2)
    quick = evaluate(values, NAMES[:12], permutations=600, inner_folds=2, stop_after=10)
    assert quick.scores["m0"].permutations < 600
    assert quick.scores["m0"].p == pytest.approx(full.scores["m0"].p, abs=0.25)
    assert len(quick.scores["m0"].null) < 600


def test_families_flip_together():
    """With every patient in one of four blocks there are 16 sign vectors, so p cannot
    be below 1/16 but by chance (400 draws; .03 is 2.7 standard errors)."""
    values = cohort(12, (5,), effect=3.0, seed=8)
    blocks = np.repeat(["a", "b", "c", "d"], 3)
    assert (
        evaluate(values, NAMES[:12], permutations=400, blocks=blocks, inner_folds=2)
        .scores["m0"]
        .p
        > 0.03
    )
    assert evaluate(values, NAMES[:12], permutations=400).scores["m0"].p < 0.01


def test_families_are_left_out_together():
    """Twins whose differences are alike, with signs at random: guessing, not
    recognition of the other twin."""
    rng = np.random.default_rng(0)
    d = np.repeat(rng.normal(size=(20, 1, 30)), 2, 0) + 0.1 * rng.normal(
        size=(40, 1, 30)
    )
    values = {"a": np.concatenate([0 * d, d], 1)}
    evaluation = evaluate(
        values, NAMES, permutations=0, blocks=np.repeat(np.arange(20), 2)
    )
    alone = evaluate(values, NAMES, permutations=0)
    assert (
        alone.scores["a"].accuracy > 0.95
        and abs(evaluation.scores["a"].accuracy - 0.5) < 0.25
    )
    assert (evaluation.folds[::2] == evaluation.folds[1::2]).all() and (
        evaluation.parts[::2] == evaluation.parts[1::2]
    ).all()


def test_single_scans_do_not_depend_on_a_constant():
    values = cohort(30, (5,), effect=2.0, seed=3)
    near = evaluate(values, NAMES[:30], permutations=0).scores["m0"].single_scan_auc
    far = (
        evaluate({"m0": values["m0"] + 1000}, NAMES[:30], permutations=0)
        .scores["m0"]
        .single_scan_auc
    )
    assert near == pytest.approx(far, abs=1e-9)


def test_whole_numbers_have_the_weights_of_the_same_decimals():
    values = np.random.default_rng(0).integers(0, 100, size=(12, 2, 3))
    whole, decimal = (
        evaluate({"a": v}, NAMES[:12], permutations=0)
        for v in (values, values.astype(float))
    )
    np.testing.assert_array_equal(whole.weights["a"], decimal.weights["a"])


def test_undecided_patients_count_half_everywhere():
    """Ordinal features: differences of 0 decide nothing."""
    values = np.random.default_rng(1).integers(0, 2, size=(20, 2, 1)).astype(float)
    evaluation = evaluate({"a": values, "b": values[::-1]}, NAMES[:20], permutations=19)
    score = evaluation.scores["a"]
    assert (score.decisions == 0).sum() == (values[:, 0] == values[:, 1]).sum()
    table = evaluation.predictions().query("model == 'a'")
    assert table["correct"].mean() == pytest.approx(score.accuracy)


def test_a_modality_that_few_have_does_no_harm():
    values = cohort(20, (4, 1), seed=2)
    values["m1"][3:] = np.nan
    evaluation = evaluate(values, NAMES[:20], permutations=19, missing="log_odds")
    assert np.isfinite(
        evaluation.scores["fused"].decisions
    ).all() and evaluation.missing == {"m1": 17}


def test_a_copied_patient_is_refused_under_any_name():
    values = cohort(12, (4, 1))
    copied = {name: np.concatenate([v, v[3:4]]) for name, v in values.items()}
    with pytest.raises(InputError, match="sub-03 and sub-12 have the same features"):
        evaluate(copied, NAMES[:13], permutations=0)
    family = evaluate(copied, NAMES[:13], permutations=0, blocks=[*range(12), 3])
    assert family.folds[12] == family.folds[3]
    with pytest.raises(InputError, match="is a copy of"):
        evaluate_ratings(
            copied,
            np.random.default_rng(0).normal(size=(13, 2)),
            NAMES[:13],
            permutations=0,
        )
    ordinal = np.random.default_rng(0).integers(0, 2, size=(30, 2, 3)).astype(float)
    assert len(evaluate({"a": ordinal}, NAMES[:30], permutations=0).patients) == 30, (
        "they coincide by chance"
    )


def test_the_order_in_which_penalties_are_typed_does_not_matter():
    values = cohort(16, (5, 1), effect=0.5, seed=3)
    up, down = (
        evaluate(values, NAMES[:16], permutations=0, C=c)
        for c in ((1e-3, 1, 100), (100, 1, 1e-3))
    )
    for name, score in up.scores.items():
        np.testing.assert_array_equal(score.decisions, down.scores[name].decisions)


@pytest.mark.parametrize("widths", [(3, 4), (3, 80)])
def test_a_control_is_scored_as_if_it_were_evaluated_alone(widths):
    """A control has no inner responses; its outer models still see every part."""
    values = cohort(14, widths)
    options = {"permutations": 9, "inner_folds": 3}
    control = evaluate(values, NAMES[:14], controls=("m1",), **options).scores["m1"]
    alone = evaluate({"m1": values["m1"]}, NAMES[:14], **options).scores["m1"]
    np.testing.assert_array_equal(control.decisions, alone.decisions)
    np.testing.assert_array_equal(control.scans, alone.scans)
    np.testing.assert_array_equal(control.null, alone.null)


def test_a_study_of_controls_only_is_refused():
    with pytest.raises(InputError, match="Every modality is a control"):
        evaluate(cohort(12, (3,)), NAMES[:12], controls=("m0",), permutations=0)


def test_models_are_compared_patient_by_patient():
    values = cohort(30, (4, 1), effect=1.5, seed=2)
    scores = evaluate(values, NAMES[:30], permutations=0).scores
    gain = difference(scores["m0"], scores["m1"])
    assert gain.accuracy == pytest.approx(scores["m0"].accuracy - scores["m1"].accuracy)
    assert gain.auc == pytest.approx(scores["m0"].auc - scores["m1"].auc)
    assert (
        gain.accuracy_ci.low <= gain.accuracy <= gain.accuracy_ci.high
        and 0 < gain.mcnemar <= 1
    )
    same = difference(scores["m0"], scores["m0"])
    assert (same.accuracy, same.auc, same.mcnemar) == (0.0, 0.0, 1.0)


def test_visits_in_the_order_of_time_are_turned():
    values, higher = cohort(20, (5,), effect=2.0), np.arange(20) % 3 > 0
    timed = {"m0": np.where(higher[:, None, None], values["m0"], values["m0"][:, ::-1])}
    score = evaluate(timed, NAMES[:20], higher=higher, permutations=0).scores["m0"]
    np.testing.assert_array_equal(
        score.decisions,
        evaluate(values, NAMES[:20], permutations=0).scores["m0"].decisions,
    )


def test_stopping_at_nothing_is_refused():
    with pytest.raises(InputError, match="at least 1 permutation"):
        evaluate(cohort(12, (3,)), NAMES[:12], permutations=19, stop_after=0)


def test_single_scans_are_harder_than_pairs_where_people_differ():
    """A trait of SD 5 that both visits share hides an effect of 1 from a single scan,
    not from the pair."""
    rng = np.random.default_rng(9)
    v = rng.normal(size=(40, 2, 1)) * 0.5 + 5 * rng.normal(size=(40, 1, 1))
    v[:, 1] += 1
    score = evaluate({"hf": v}, NAMES, permutations=199).scores["hf"]
    assert score.accuracy > 0.85 and score.single_scan_auc < 0.7
    assert score.p < 0.01
    assert np.array_equal(
        score.scans[:, 1] - score.scans[:, 0] > 0, score.decisions > 0
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v, n: v["m0"].__setitem__((0, 0, 0), np.nan), "missing or infinite"),
        (
            lambda v, n: v["m0"].__setitem__(slice(None), 3.0),
            "does not differ between the visits",
        ),
        (lambda v, n: n.__setitem__(1, n[0]), "Patients must differ"),
        (
            lambda v, n: v.__setitem__("m0", v["m0"][:, :1]),
            r"expected \(patient, visit, feature\)",
        ),
    ],
)
def test_bad_input_is_told(change, message):
    values, names = cohort(12, (3,)), NAMES[:12]
    change(values, names)
    with pytest.raises(InputError, match=message):
        evaluate(values, names, permutations=0)


def test_few_patients_are_refused_unless_forced():
    values = cohort(8, (3,))
    with pytest.raises(InputError, match="at least 10 patients; got 8.*force"):
        evaluate(values, NAMES[:8], permutations=0)
    assert len(evaluate(values, NAMES[:8], permutations=0, force=True).patients) == 8
    with pytest.raises(InputError, match="at least 4 patients"):
        evaluate(cohort(3, (3,)), NAMES[:3], permutations=0, force=True)


@pytest.mark.parametrize(
    "options",
    [
        {"folds": 1},
        {"inner_folds": 9},
        {"C": 0.0},
        {"fusion": "magic"},
        {"missing": "mean"},
        {"fusion": "kernels", "scale": ("m0",)},
    ],
)
def test_settings_that_make_no_sense_are_refused(options):
    with pytest.raises(InputError):
        evaluate(cohort(12, (3, 2)), NAMES[:12], permutations=0, **options)
