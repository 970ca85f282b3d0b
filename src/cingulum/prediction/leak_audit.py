"""Where a score can come from without the brain: the same pipeline on noise, and
predictors that know too little."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from cingulum.errors import InputError
from cingulum.prediction.lee2019 import PublishedRegression
from cingulum.prediction.paired_evaluation import evaluate
from cingulum.prediction.permutation import Jobs, in_blocks
from cingulum.prediction.regression import Ratings, RegressionSettings, regress
from cingulum.prediction.scan_kernels import feature_kernel
from cingulum.prediction.scores import Evaluation
from cingulum.random_streams import Stream, generator

NOISE_FEATURES = 500
"""Noise features are made no more than so many: beyond many times the patients more
change nothing."""


Verdict = Literal["pass", "warn", "fail"]


@dataclass(frozen=True)
class Check:
    """One question put to the pipeline. verdict: pass, warn (limits what a score means)
    or fail (do not believe it)."""

    name: str
    found: float
    expected: str
    verdict: Verdict
    words: str


def audit(
    modalities: dict[str, np.ndarray],
    evaluation: Evaluation,
    *,
    rose: np.ndarray | None = None,
    ratings: Ratings | None = None,
    published: PublishedRegression | None = None,
    confounds: dict[str, np.ndarray] | None = None,
    repeats: int = 50,
    seed: int = 0,
    jobs: Jobs = 1,
    show_progress: bool = False,
) -> list[Check]:
    """rose: (patient,) whether the visit called second came later in time; ratings,
    published: regressions; repeats: of the whole evaluation on noise"""
    lost = [name for name in evaluation.fused if name not in modalities]
    if lost:
        raise InputError(
            "The audit needs every modality that was evaluated; missing: "
            f"{', '.join(lost)}."
        )
    shapes = {
        name: min(modalities[name].shape[-1], NOISE_FEATURES)
        for name in evaluation.fused
    }
    work, blocks = (
        _Noise.of(evaluation, shapes, confounds, seed),
        list(np.arange(repeats)[:, None]),
    )
    reached = in_blocks(work, blocks, jobs, show_progress, "audit on noise")
    what = f"The same pipeline on noise of the same shape, {repeats} times: accuracy"
    found = [
        _no_better("noise features", what, np.concatenate(list(reached)), 0.5),
        _shuffled(evaluation),
    ]
    if rose is not None:
        found.append(_order(rose))
    found += [
        _confound(name, evaluation)
        for name in evaluation.scores
        if name not in (*evaluation.fused, "fused")
    ]
    if ratings is not None:
        found += audit_ratings(ratings)
    if published is not None:
        found.append(_published(published))
    return found


def _best(evaluation: Evaluation) -> str:
    return "fused" if "fused" in evaluation.scores else evaluation.fused[0]


@dataclass(frozen=True, eq=False)
class _Noise:
    """Accuracies (repeat,) of an evaluation's pipeline on noise, of these repeats. Only
    too good is a failure: leaving one out is pessimistic, with few features visibly so.
    Four standard errors, since accuracies of few features are skewed."""

    patients: int
    shapes: dict[str, int]
    options: dict[str, Any]
    seed: int

    @staticmethod
    def of(
        e: Evaluation,
        shapes: dict[str, int],
        confounds: dict[str, np.ndarray] | None,
        seed: int,
    ) -> _Noise:
        n = len(e.patients)
        options = {
            "inner_folds": e.inner_folds,
            "C": e.C,
            "fusion": e.fusion,
            "confounds": confounds,
            "folds": None if e.folds.max() == n - 1 else int(e.folds.max()) + 1,
            "scale": tuple(s for s in e.scaled if s in shapes),
        }
        return _Noise(n, shapes, options, seed)

    def __call__(self, repeats: np.ndarray) -> np.ndarray:
        return np.array([self._accuracy(int(r)) for r in repeats])

    def _accuracy(self, r: int) -> float:
        rng = generator(self.seed, Stream.AUDIT_NOISE, r + 1)
        noise = {
            name: rng.normal(size=(self.patients, 2, width))
            for name, width in self.shapes.items()
        }
        names = [str(i) for i in range(self.patients)]
        again = evaluate(
            noise,
            names,
            permutations=0,
            contributions=False,
            bootstrap=0,
            seed=self.seed + r,
            jobs=1,
            force=True,
            **self.options,
        )
        return again.scores[_best(again)].accuracy


def _no_better(name: str, what: str, reached: np.ndarray, guessing: float) -> Check:
    mean, error = (
        float(reached.mean()),
        float(reached.std(ddof=1) / np.sqrt(len(reached))),
    )
    ok = mean - guessing <= 4 * error + 1e-9
    verdict = (
        "no better than guessing, as it should be"
        if ok
        else "better than guessing: something leaks"
    )
    words = f"{what} {mean:.3f} ± {error:.3f} ({verdict})."
    return Check(
        name,
        mean,
        f"at most {guessing:g} and 4 standard errors",
        "pass" if ok else "fail",
        words,
    )


def _shuffled(evaluation: Evaluation) -> Check:
    null = evaluation.scores[_best(evaluation)].null
    if not len(null):
        return Check(
            "shuffled visits",
            float("nan"),
            "at most 50 %",
            "warn",
            "No permutations were asked for.",
        )
    mean, error = float(null.mean()), float(null.std() / np.sqrt(len(null)))
    ok = mean <= 0.5 + 3 * error + 0.01
    return Check(
        "shuffled visits",
        mean,
        "at most 50 %",
        "pass" if ok else "fail",
        f"The real features with visits swapped at random: {100 * mean:.1f} % on "
        f"average over {len(null)} permutations "
        "(below 50 % is the known pessimism of leaving one out, and costs power, not "
        "validity).",
    )


def _order(rose: np.ndarray) -> Check:
    share = float(np.mean(rose))
    alias = max(share, 1 - share)
    return Check(
        "order oracle",
        alias,
        "near 50 % in a counterbalanced design",
        "warn" if alias > 0.65 else "pass",
        f"Who knows nothing but which visit came later is right in {100 * alias:.0f} % "
        "of patients"
        + (
            ": whatever changes with time or order cannot be told apart from pain."
            if alias > 0.65
            else "."
        ),
    )


def _confound(name: str, evaluation: Evaluation) -> Check:
    score = evaluation.scores[name]
    return Check(
        f"{name} alone",
        score.accuracy,
        "not distinguishable from 50 %",
        "warn" if score.p < 0.05 else "pass",
        f"{name} alone recognises the visit in {100 * score.accuracy:.1f} % of "
        f"patients (p = {score.p:.3f}).",
    )


def audit_ratings(ratings: Ratings, noise: int = 0, seed: int = 0) -> list[Check]:
    """The checks of a regression between patients; noise: repeats with as many features
    of noise as scans."""
    found, r = [], ratings.performance["r"]
    if noise:
        found.append(_noise_ratings(ratings, noise, seed))
    oracle = ratings.baselines.get("state only")
    if oracle:
        beaten = r > oracle["r"] + 0.02
        found.append(
            Check(
                "state-only oracle",
                oracle["r"],
                "below the model's pooled r",
                "pass" if beaten else "warn",
                "Who knows only before from after predicts ratings with r = "
                f"{oracle['r']:.2f}; the model's pooled r "
                f"is {r:.2f}. Read the r within states "
                f"({ratings.performance['r_within_state']:.2f}) instead.",
            )
        )
    for name, alone in ratings.baselines.items():
        if name in ("training mean", "state only"):
            continue
        theirs, ours = alone["r_within_state"], ratings.performance["r_within_state"]
        words = (
            f"A ridge regression on {name} alone: r within states = {theirs:.2f}, "
            f"the model {ours:.2f}."
        )
        verdict: Verdict = "pass" if theirs < ours else "warn"
        found.append(
            Check(f"{name} alone, ratings", theirs, "below the model", verdict, words)
        )
    if len(ratings.null):
        mean = float(ratings.null.mean())
        found.append(
            Check(
                "shuffled patients",
                mean,
                "|r| below 0.1 on average",
                "pass" if mean < 0.1 else "fail",
                f"Ratings exchanged between patients: r within states = {mean:.2f} on "
                "average.",
            )
        )
    return found


def _noise_ratings(ratings: Ratings, repeats: int, seed: int) -> Check:
    rng, s = generator(seed, Stream.AUDIT_RATINGS), ratings.scans
    reached = []
    for r in range(repeats):
        kernel = feature_kernel(
            {"noise": rng.normal(size=(len(s.rating), len(s.rating)))}
        )
        settings = RegressionSettings(permutations=0, bootstrap=0, seed=seed + r)
        again = regress(s, kernel, ratings.folds, settings, jobs=1)
        reached.append(again.performance["r_within_state"])
    what = (
        f"A ridge regression on noise with the same folds, {repeats} times: r "
        "within states"
    )
    return _no_better("noise features, ratings", what, np.array(reached), 0.0)


def _published(published: PublishedRegression) -> Check:
    verdict: Verdict = "warn" if published.noise_r > 0.1 else "pass"
    words = f"{published.label} On these data it gives r = {published.test_r:.2f}."
    return Check(
        "published 2019 split",
        published.noise_r,
        "0 if it did not leak",
        verdict,
        words,
    )


def failed(checks: Sequence[Check]) -> list[Check]:
    """Those that say not to believe the score."""
    return [c for c in checks if c.verdict == "fail"]
