"""Fit one person's first run, and see what the fit is worth on the second: `cingulum
fetch hcp` gets the data."""

import math

import torch
from torch.distributions import LogNormal

from cingulum import Brain, ReducedWongWang, Sensor, balanced, fit, verify
from cingulum.datasets import hcp
from cingulum.inference import Runs

torch.set_default_dtype(torch.float64)
folder = hcp.fetch()
first, second = (hcp.bold(folder, "100206", run) for run in ("REST1_LR", "REST2_LR"))
connectome = hcp.connectome(folder, "100206").normalised()
brain = Brain(ReducedWongWang(), connectome, Sensor(tr=first.tr))

# One coupling for all; recurrent excitation and noise of every region. Priors are
# torch.distributions.
n = len(connectome.regions)
free = {
    "strength": LogNormal(-1.0, 0.7),
    "mass.w_plus": LogNormal(math.log(1.4), 0.1).expand([n]),
    "noise": LogNormal(math.log(0.01), 0.5).expand([n]),
}
fitted = fit(
    brain,
    first,
    free,
    prepare=balanced,
    method="analytic",
    steps=120,
    runs=Runs(minutes=14.4, runs=1),
    show_progress=True,
)
print(fitted)

# Free-running figures beside everything simpler that predicts as well; the group is
# what all people share.
print(verify(fitted, second, group=hcp.group_fc(folder), seeds=3))
