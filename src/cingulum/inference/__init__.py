"""How parameters are found: objectives, the fit, and the controls it is read against."""

from cingulum.inference.control import linear_network as linear_network
from cingulum.inference.fit import Fit as Fit
from cingulum.inference.fit import fit as fit
from cingulum.inference.objectives import fc_error as fc_error
from cingulum.inference.objectives import fc_mismatch as fc_mismatch
from cingulum.inference.protocol import resting_fit as resting_fit
