"""How parameters are found: objectives, the fit, and the controls it is read
against."""

from cingulum.inference.amortised import amortise as amortise
from cingulum.inference.amortised import load_amortised as load_amortised
from cingulum.inference.cohort_fit import CohortFit as CohortFit
from cingulum.inference.cohort_fit import CohortRecording as CohortRecording
from cingulum.inference.cohort_fit import fit_cohort as fit_cohort
from cingulum.inference.fitting import Fit as Fit
from cingulum.inference.fitting import fit as fit
from cingulum.inference.free_parameters import Gains as Gains
from cingulum.inference.free_parameters import Mapped as Mapped
from cingulum.inference.linear_control import equal_control as equal_control
from cingulum.inference.linear_control import linear_network as linear_network
from cingulum.inference.objectives import FcdMismatch as FcdMismatch
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
from cingulum.inference.posterior import Posterior as Posterior
from cingulum.inference.posterior import laplace as laplace
from cingulum.inference.posterior import profile as profile
from cingulum.inference.problem import Runs as Runs
from cingulum.inference.published.griffiths2022 import published_fit as published_fit
from cingulum.inference.published.griffiths2022_model import (
    published_model as published_model,
)
from cingulum.inference.resting import resting_fit as resting_fit
from cingulum.inference.simulation_calibration import calibrate as calibrate
from cingulum.inference.verification import fit_and_verify as fit_and_verify
from cingulum.inference.verification import verify as verify
from cingulum.inference.views import Cleaning as Cleaning
