"""Across people: paired classifiers and their honest evaluation."""

from cingulum.prediction.estimators import FusedPairedSVC as FusedPairedSVC
from cingulum.prediction.estimators import PairedSVC as PairedSVC
from cingulum.prediction.paired_evaluation import difference as difference
from cingulum.prediction.paired_evaluation import evaluate as evaluate
from cingulum.prediction.regression import evaluate_ratings as evaluate_ratings
from cingulum.prediction.scores import Contribution as Contribution
from cingulum.prediction.scores import Evaluation as Evaluation
from cingulum.prediction.scores import Score as Score
