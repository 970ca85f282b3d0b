"""What the scanner gave: BIDS visits, checked files, cleaned BOLD, beats, regions and ratings."""

from cingulum.recordings.bids import Visit as Visit
from cingulum.recordings.bids import visits as visits
from cingulum.recordings.bold import Denoising as Denoising
from cingulum.recordings.cohort import Cohort as Cohort
from cingulum.recordings.cohort import read_cohort as read_cohort
