"""The results of a prediction from a table, in sections: what its report prints and its
summary.json holds.

Field names are the keys of summary.json, where the sections lie side by side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cingulum.prediction.leak_audit import Check
from cingulum.prediction.regression import Ratings
from cingulum.prediction.statistics import Interval
from cingulum.prediction.study_evaluation import StudyEvaluation
from cingulum.report.results import (
    NOT_ASKED,
    EvaluationSection,
    Performance,
    PublishedSection,
    RegressionSection,
    SingleScan,
    to_plain,
)
from cingulum.report.summarise import evaluation_section, regression_section

LeftOut = Mapping[str, int | Sequence[str]]
"""What was not used, by reason: how many, or which."""

Setting = (
    bool
    | int
    | float
    | str
    | Sequence[str]
    | Sequence[float]
    | Mapping[str, Sequence[str]]
)
"""The value of an option."""


@dataclass(frozen=True)
class Headline:
    """The main score: of the fusion, or of the regression.

    score_name: accuracy, r_within_state, or r where there is one state only
    """

    design: str
    question: str
    score_name: str
    score: float
    interval: Interval
    p: float
    permutations: int
    participants: int


@dataclass(frozen=True)
class TableEstimands:
    """The three questions, each with its own figures; where the table does not allow
    one, the reason under `not asked`."""

    forced_choice: Mapping[str, Performance] | Mapping[str, str]
    single_interval: Mapping[str, SingleScan] | Mapping[str, str]
    between_patients: Mapping[str, RegressionSection | PublishedSection | str]


@dataclass(frozen=True)
class BetweenSection:
    """What was asked between participants; see `EvaluationSection` for pairs."""

    estimands: TableEstimands
    audit: Sequence[Check]
    notes: Sequence[str]


@dataclass(frozen=True)
class TableUse:
    """What was made of the table.

    columns: by modality; left_out: rows, participants and columns, by reason
    settings: options that were set; versions: of the software
    """

    columns: Mapping[str, Sequence[str]]
    left_out: LeftOut
    settings: Mapping[str, Setting]
    versions: Mapping[str, str]


@dataclass(frozen=True)
class TableResults:
    """Everything that the report of a prediction from a table prints.

    lead: the headline as a sentence
    """

    headline: Headline
    section: EvaluationSection | BetweenSection
    lead: str
    use: TableUse

    def with_remarks(
        self, checks: Sequence[Check], notes: Sequence[str]
    ) -> TableResults:
        """The same with further checks and notes, after those of the evaluation."""
        section = replace(
            self.section,
            audit=[*self.section.audit, *checks],
            notes=[*self.section.notes, *notes],
        )
        return replace(self, section=section)

    def to_summary(self) -> dict[str, Any]:
        """The content of summary.json: all sections as one object."""
        # The template of the page distinguishes the designs by the keys there are.
        return {
            **to_plain(self.headline),
            **to_plain(self.section),
            "lead": self.lead,
            **to_plain(self.use),
        }


def paired_results(
    evaluation: StudyEvaluation, outcome: str, use: TableUse
) -> TableResults:
    """Results of the paired design; the headline is the accuracy of the best model."""
    score = evaluation.paired.scores[evaluation.best]
    headline = Headline(
        design="paired",
        question=f"Which of a participant's two visits had the higher {outcome}?",
        score_name="accuracy",
        score=score.accuracy,
        interval=score.accuracy_ci,
        p=score.p,
        permutations=score.permutations,
        participants=len(evaluation.paired.patients),
    )
    results = TableResults(
        headline,
        evaluation_section(evaluation),
        _paired_lead(headline, outcome),
        use,
    )
    # Otherwise accuracies that are no multiple of 1/n would look like an error.
    undecided = "An undecided participant (decision 0) counts half."
    return results.with_remarks([], [undecided])


def _paired_lead(headline: Headline, outcome: str) -> str:
    low = 100 * headline.interval.low
    high = 100 * headline.interval.high
    return (
        "Of two visits of a participant it had never seen, the model named the one "
        f"with the higher {outcome} in {100 * headline.score:.1f} % of "
        f"{headline.participants} participants (95 % interval {low:.1f} to "
        f"{high:.1f} %, p = {headline.p:.4f})."
    )


@dataclass(frozen=True, eq=False)
class BetweenEvaluation:
    """What was evaluated between participants.

    ratings: the regression; checks: its audit
    everybody: participants in the table, also those without complete rows
    paired: the questions of pairs of visits, or why they cannot be asked
    """

    ratings: Ratings
    checks: Sequence[Check]
    everybody: int
    paired: StudyEvaluation | str

    @property
    def participants(self) -> int:
        return len(self.ratings.scans.names)

    @property
    def has_states(self) -> bool:
        """Whether participants were scanned in more than one state."""
        return len(np.unique(self.ratings.scans.state)) > 1


def between_results(
    evaluation: BetweenEvaluation, outcome: str, use: TableUse
) -> TableResults:
    """Results of the design between participants; the headline is the correlation of
    predicted and observed outcomes within states."""
    ratings = evaluation.ratings
    headline = Headline(
        design="between",
        question=f"How high is {outcome} in a participant never seen?",
        score_name="r_within_state" if evaluation.has_states else "r",
        score=ratings.performance["r_within_state"],
        interval=ratings.intervals["r_within_state"],
        p=ratings.p,
        permutations=ratings.permutations,
        participants=evaluation.participants,
    )
    return TableResults(
        headline,
        _between_section(evaluation),
        _between_lead(evaluation, headline, outcome),
        use,
    )


def _between_section(evaluation: BetweenEvaluation) -> BetweenSection:
    checks = evaluation.checks
    paired = evaluation.paired
    between = {"all": regression_section(evaluation.ratings)}
    # Tables with one visit per participant answer one question only.
    if isinstance(paired, str):
        reason = {NOT_ASKED: paired}
        return BetweenSection(TableEstimands(reason, reason, between), checks, [])
    pairs = evaluation_section(paired)
    estimands = TableEstimands(
        pairs.estimands.forced_choice, pairs.estimands.single_interval, between
    )
    # Notes on pairs are left out: the report of this design is about the regression.
    return BetweenSection(estimands, [*checks, *pairs.audit], [])


def _between_lead(
    evaluation: BetweenEvaluation, headline: Headline, outcome: str
) -> str:
    # Participants without complete rows are not hidden.
    number = f"{evaluation.participants}"
    if evaluation.participants != evaluation.everybody:
        number += f" of {evaluation.everybody}"
    within = "within states " if evaluation.has_states else ""
    interval = headline.interval
    r2 = evaluation.ratings.performance["r2"]
    return (
        f"Predicted {outcome} of {number} participants never seen correlates with r = "
        f"{headline.score:.2f} {within}(95 % interval {interval.low:.2f} to "
        f"{interval.high:.2f}, p = {headline.p:.4f}); prediction R² = {r2:.2f}."
    )
