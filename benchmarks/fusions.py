"""Three ways to fuse modalities: accuracy, AUC and power (share of p ≤ .05) over
cohorts with weak planted effects."""

import argparse

import numpy as np
import pandas as pd

from cingulum.prediction import evaluate

N = 53


def cohort(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)

    def smooth(effect: float) -> np.ndarray:
        basis = rng.normal(size=(400, 2000)) / 20
        values = rng.normal(size=(N, 2, 400)) @ basis
        values[:, 1] += effect * rng.normal(size=2000)
        return values

    scalar = rng.normal(size=(N, 2, 1))
    scalar[:, 1] += 0.5
    return {"map 1": smooth(0.07), "map 2": smooth(0.06), "scalar": scalar}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--cohorts", type=int, default=60)
    rows = []
    for seed in range(options.parse_args().cohorts):
        values = cohort(seed)
        for fusion in ("stacked", "kernels", "log_odds"):
            found = evaluate(
                values,
                [str(i) for i in range(N)],
                permutations=99,
                fusion=fusion,
                contributions=False,
            )
            for name in (*values, "fused") if fusion == "stacked" else ("fused",):
                s = found.scores[name]
                rows.append(
                    (
                        fusion if name == "fused" else name,
                        s.accuracy,
                        s.auc,
                        s.p <= 0.05,
                    )
                )
    table = pd.DataFrame(
        rows, columns=["model", "accuracy", "paired AUC", "power"]
    ).groupby("model", sort=False)
    print(table.mean().round(3).to_string())


if __name__ == "__main__":
    main()
