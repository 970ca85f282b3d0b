"""What the published between-patient recipe gives on features that know nothing of
pain, and what ours gives: a table (lee2019.md §4.1 has the same simulations) and
    docs/figures/published_split.png.

Ratings are those digitised from figure 3B of Lee et al. 2019 (CINGULUM_DATA), or drawn
with their moments. Features are white or smooth (few components), with a share that is
the person's own ("trait") and stays from scan to scan.
"""

import argparse
import os
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from cingulum.prediction.lee2019 import published_regression
from cingulum.prediction.regression import evaluate_ratings

KINDS = (
    ("white, 2000 features", None),
    ("1000 components", 1000),
    ("200 components", 200),
)
TRAITS = (0.0, 0.5, 0.8, 0.95)


def given_ratings() -> np.ndarray:
    path = (
        Path(os.environ.get("CINGULUM_DATA", ""))
        / "lee2019"
        / "pain_ratings_digitised.csv"
    )
    if path.is_file():
        return pd.read_csv(path)[["pre_lbp", "post_lbp"]].to_numpy()
    print("digitised ratings not found: drawn with their moments")
    rng = np.random.default_rng(0)
    spread = np.array([[19.0**2, 0.789 * 19.0 * 18.9], [0.789 * 19.0 * 18.9, 18.9**2]])
    return rng.multivariate_normal([31.6, 55.2], spread, size=53)


def features(
    rng: np.random.Generator, components: int | None, trait: float
) -> np.ndarray:
    width = components or 2000
    own, scan = rng.normal(size=(53, 1, width)), rng.normal(size=(53, 2, width))
    values = np.sqrt(trait) * own + np.sqrt(1 - trait) * scan
    return values if components is None else values @ rng.normal(size=(width, 1500))


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--cohorts", type=int, default=40)
    options.add_argument(
        "--figure", type=Path, default=Path("docs/figures/published_split.png")
    )
    given = options.parse_args()
    ratings, names, found = given_ratings(), [f"{i:02d}" for i in range(53)], {}
    print(
        f"{'features':22} {'trait':>5} {'published recipe, test r':>28} "
        f"{'patient-wise, nested':>22}"
    )
    for label, components in KINDS:
        for trait in TRAITS:
            rows = []
            for seed in range(given.cohorts):
                rng = np.random.default_rng(seed)
                values = {
                    "map": features(rng, components, trait),
                    "scalar": rng.normal(size=(53, 2, 1)),
                }
                theirs = published_regression(
                    values, ratings, permutations=1, noises=1, seed=seed
                ).test_r
                ours = evaluate_ratings(
                    values, ratings, names, permutations=0, seed=seed
                ).performance["r"]
                rows.append((theirs, ours))
            theirs, ours = np.array(rows).T
            low, high = np.quantile(theirs, [0.025, 0.975])
            found[label, trait] = rows
            print(
                f"{label:22} {trait:5.2f} {theirs.mean():10.2f} ({low:5.2f} to "
                f"{high:4.2f}) {ours.mean():22.2f}",
                flush=True,
            )
    figure, axes = plt.subplots(
        1, len(KINDS), figsize=(11, 3.6), sharey=True, layout="constrained"
    )
    for ax, (label, _) in zip(axes, KINDS, strict=True):
        for column, colour, name in (
            (0, "#b5482f", "published split"),
            (1, "#1f5f8b", "patient-wise, nested"),
        ):
            groups = [np.array(found[label, trait])[:, column] for trait in TRAITS]
            places = np.arange(len(TRAITS)) + 0.18 * (2 * column - 1)
            drawn = ax.boxplot(
                groups,
                positions=places,
                widths=0.3,
                patch_artist=True,
                showfliers=False,
            )
            for box in drawn["boxes"]:
                box.set(facecolor=colour, alpha=0.6)
            ax.plot([], [], color=colour, lw=6, alpha=0.6, label=name)
        ax.axhline(0, color="#56606e", lw=0.8)
        ax.axhline(0.63, color="#1c2430", lw=0.8, ls=":")
        ax.set(
            title=label,
            xlabel="share of the person's own",
            xticks=range(len(TRAITS)),
            xticklabels=TRAITS,
        )
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("r on noise (dotted: published .63)")
    axes[0].legend(frameon=False, fontsize=8)
    given.figure.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(given.figure, dpi=100, metadata={"Software": None})


if __name__ == "__main__":
    main()
