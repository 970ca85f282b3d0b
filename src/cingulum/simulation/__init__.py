"""How a brain runs: simulation in time, equilibrium and linear response."""

from cingulum.simulation.equilibrium import analytic_fc as analytic_fc
from cingulum.simulation.equilibrium import fixed_point as fixed_point
from cingulum.simulation.equilibrium import stability as stability
from cingulum.simulation.simulate import Simulation as Simulation
from cingulum.simulation.simulate import simulate as simulate
from cingulum.simulation.simulate import time_step as time_step
