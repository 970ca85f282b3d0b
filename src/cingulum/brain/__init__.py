"""What the model is: masses, haemodynamics, connectome, and the brain they make."""

from cingulum.brain.brain import Brain as Brain
from cingulum.brain.connectome import Connectome as Connectome
from cingulum.brain.dynamics import Dynamics as Dynamics
from cingulum.brain.dynamics import Response as Response
from cingulum.brain.dynamics import with_values as with_values
from cingulum.brain.haemodynamics import BalloonWindkessel as BalloonWindkessel
from cingulum.brain.sensor import Sensor as Sensor
