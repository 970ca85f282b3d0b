"""Across people: paired classifiers and their honest evaluation."""

from cingulum.prediction.evaluate import Evaluation as Evaluation
from cingulum.prediction.evaluate import evaluate as evaluate
from cingulum.prediction.paired import PairedSVC as PairedSVC
