"""How parameters are found: objectives, the fit, and the controls it is read against."""

from cingulum.inference.control import linear_network as linear_network
from cingulum.inference.fit import Fit as Fit
from cingulum.inference.fit import fit as fit
from cingulum.inference.free import Gains as Gains
from cingulum.inference.free import Mapped as Mapped
from cingulum.inference.objectives import ConnectivityDynamics as ConnectivityDynamics
from cingulum.inference.objectives import Likelihood as Likelihood
from cingulum.inference.objectives import Metastability as Metastability
from cingulum.inference.objectives import Rate as Rate
from cingulum.inference.objectives import Spectrum as Spectrum
from cingulum.inference.objectives import fc_error as fc_error
from cingulum.inference.objectives import fc_geodesic as fc_geodesic
from cingulum.inference.objectives import fc_level as fc_level
from cingulum.inference.objectives import fc_mismatch as fc_mismatch
from cingulum.inference.objectives import lag_mismatch as lag_mismatch
from cingulum.inference.objectives import time_course as time_course
from cingulum.inference.problem import Runs as Runs
from cingulum.inference.protocol import resting_fit as resting_fit
from cingulum.inference.view import Cleaning as Cleaning
