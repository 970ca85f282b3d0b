"""How a brain runs: simulation in time, equilibrium, stability and linear response."""

from cingulum.simulation.linear.balance import balanced as balanced
from cingulum.simulation.linear.branches import continuation as continuation
from cingulum.simulation.linear.branches import equilibria as equilibria
from cingulum.simulation.linear.branches import stability_map as stability_map
from cingulum.simulation.linear.eigenvalues import Stability as Stability
from cingulum.simulation.linear.eigenvalues import stability as stability
from cingulum.simulation.linear.equilibrium import analytic_fc as analytic_fc
from cingulum.simulation.linear.equilibrium import fixed_point as fixed_point
from cingulum.simulation.linear.equilibrium import linearise as linearise
from cingulum.simulation.linear.spectrum import cross_spectrum as cross_spectrum
from cingulum.simulation.simulation import Simulation as Simulation
from cingulum.simulation.simulation import simulate as simulate
from cingulum.simulation.simulation import time_step as time_step
from cingulum.simulation.working_point import held_rate as held_rate
