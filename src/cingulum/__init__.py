"""Cingulum: from a patient's recordings to the mechanism and the score."""

__version__ = "0.1.0"
