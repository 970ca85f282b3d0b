"""What is on disk: BIDS datasets, their visits and participants, checked files and
images."""

from cingulum.io.cohort import Cohort as Cohort
from cingulum.io.cohort import read_cohort as read_cohort
from cingulum.io.visit import Visit as Visit
from cingulum.io.visit import visits as visits
