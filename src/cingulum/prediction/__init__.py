"""Across people: paired classifiers and their honest evaluation."""

from cingulum.prediction.between import evaluate_ratings as evaluate_ratings
from cingulum.prediction.evaluate import difference as difference
from cingulum.prediction.evaluate import evaluate as evaluate
from cingulum.prediction.paired import FusedPairedSVC as FusedPairedSVC
from cingulum.prediction.paired import PairedSVC as PairedSVC
from cingulum.prediction.scores import Contribution as Contribution
from cingulum.prediction.scores import Evaluation as Evaluation
from cingulum.prediction.scores import Score as Score
