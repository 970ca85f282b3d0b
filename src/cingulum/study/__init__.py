"""One study: a BIDS dataset in; features of every visit, their evaluation and a report out."""

from cingulum.study.findings import Findings as Findings
from cingulum.study.gather import Features as Features
from cingulum.study.gather import gather as gather
from cingulum.study.measure import MODALITIES as MODALITIES
from cingulum.study.measure import Plan as Plan
from cingulum.study.measure import features as features
from cingulum.study.measure import measure as measure
from cingulum.study.publish import evaluated as evaluated
from cingulum.study.publish import publish as publish
from cingulum.study.table import write_features as write_features
