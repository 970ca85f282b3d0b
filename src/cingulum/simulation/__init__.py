"""How a brain runs: simulation in time, equilibrium, stability and linear response."""

from cingulum.simulation.continuation import continuation as continuation
from cingulum.simulation.continuation import equilibria as equilibria
from cingulum.simulation.continuation import stability_map as stability_map
from cingulum.simulation.equilibrium import analytic_fc as analytic_fc
from cingulum.simulation.equilibrium import fixed_point as fixed_point
from cingulum.simulation.equilibrium import linearise as linearise
from cingulum.simulation.simulate import Simulation as Simulation
from cingulum.simulation.simulate import simulate as simulate
from cingulum.simulation.simulate import time_step as time_step
from cingulum.simulation.spectrum import cross_spectrum as cross_spectrum
from cingulum.simulation.stability import Stability as Stability
from cingulum.simulation.stability import stability as stability
from cingulum.simulation.working_point import held_rate as held_rate
