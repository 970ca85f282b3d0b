"""Neural masses, one a file. To add one: write the file, add its line here; the
contract tests find it."""

from cingulum.brain.masses.gain_wong_wang import GainWongWang
from cingulum.brain.masses.hopf import Hopf
from cingulum.brain.masses.jansen_rit import JansenRit
from cingulum.brain.masses.kuramoto import Kuramoto
from cingulum.brain.masses.linear import Linear
from cingulum.brain.masses.montbrio import MontbrioPazoRoxin
from cingulum.brain.masses.reduced_wong_wang import ReducedWongWang
from cingulum.brain.masses.wilson_cowan import WilsonCowan
from cingulum.brain.masses.wong_wang import WongWang

__all__ = [
    "GainWongWang",
    "Hopf",
    "JansenRit",
    "Kuramoto",
    "Linear",
    "MontbrioPazoRoxin",
    "ReducedWongWang",
    "WilsonCowan",
    "WongWang",
]
