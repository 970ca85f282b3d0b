"""Which of two visits hurt more, how sure is that, and what does each modality add?

Planted features of 40 patients: a map of 2000 voxels and a heart rate variability, both
    changed by pain.
"""

from pathlib import Path

import numpy as np

from cingulum.prediction import evaluate
from cingulum.prediction.leak_audit import audit
from cingulum.prediction.weight_maps import map_weights
from cingulum.report.plots import draw_performance

rng = np.random.default_rng(0)
patients = [f"sub-{i:02d}" for i in range(40)]
blood_flow = rng.normal(size=(40, 2, 2000))
blood_flow[:, 1, :60] += 0.7  # sixty voxels rise with pain
variability = 6 + rng.normal(size=(40, 1, 1)) + 0.4 * rng.normal(size=(40, 2, 1))
variability[:, 1] -= 0.3
motion = rng.normal(size=(40, 2, 1))

evaluation = evaluate(
    {"rcbf": blood_flow, "hfhrv": variability, "motion": motion},
    patients,
    controls=("motion",),
    permutations=999,
)
print(evaluation.table().round(3).to_string(index=False))
for name, added in evaluation.contributions.items():
    print(
        f"does {name} carry information? p = {added.p:.3f}; paired AUC "
        f"{added.auc_gain:+.3f} with it"
    )

for check in audit(
    {"rcbf": blood_flow, "hfhrv": variability, "motion": motion},
    evaluation,
    rose=np.ones(40, bool),
):
    print(f"{check.verdict:5} {check.words}")

where = map_weights(blood_flow, permutations=2000).pattern
below = where.q <= 0.05
print(
    f"{below.sum()} voxels below a false discovery rate of .05, {below[:60].sum()} of "
    "them planted"
)

Path("which_visit_hurt_more.png").write_bytes(draw_performance(evaluation))
