"""Neural masses, one a file. To add one: write the file, add its line here; the contract tests find it."""

from cingulum.brain.masses.reduced_wong_wang import ReducedWongWang
from cingulum.brain.masses.wilson_cowan import WilsonCowan

__all__ = ["ReducedWongWang", "WilsonCowan"]
