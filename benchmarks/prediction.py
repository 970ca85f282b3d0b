"""The published study at full size, on one core: 53 pairs, two maps of 200,000 voxels,
HF-HRV, nested fusion, leave-one-patient-out, 5000 permutations with voxel p-values;
beside plain scikit-learn, on a stated part of the work.

Two peers: the loop most people write (`SVC(kernel="linear")` on the mirrored maps), and
a loop of someone who knows that inner products suffice (`SVC(kernel="precomputed")` on
one Gram matrix a modality).
"""

import argparse
import resource
import time

import numpy as np
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

from cingulum.prediction import evaluate
from cingulum.prediction.svm import solver
from cingulum.prediction.weight_maps import map_weights

N, PARTS = 53, 4


def cohort(voxels: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Smooth maps (400 components) with an effect in half the components, and a
    scalar."""
    rng, found = np.random.default_rng(seed), {}
    for name, effect in (("rcbf", 0.12), ("s1conn", 0.10)):
        basis = rng.normal(size=(400, voxels)).astype(np.float32) / 20
        values = (rng.normal(size=(N * 2, 400)).astype(np.float32) @ basis).reshape(
            N, 2, voxels
        )
        values[:, 1] += effect * (rng.normal(size=400).astype(np.float32) @ basis)
        found[name] = values
    hfhrv = rng.normal(6, 1.15, size=(N, 2, 1))
    hfhrv[:, 1] = hfhrv[:, 0] + rng.normal(-0.29, 0.47, size=(N, 1))
    return found | {"hfhrv": hfhrv}


def ours(values: dict[str, np.ndarray], permutations: int) -> tuple[float, float]:
    names = [str(i) for i in range(N)]
    began = time.perf_counter()
    evaluate(
        values,
        names,
        permutations=permutations,
        inner_folds=PARTS,
        contributions=False,
        jobs=1,
    )
    alike = time.perf_counter() - began
    began = time.perf_counter()
    found = evaluate(
        values, names, permutations=permutations, inner_folds=PARTS, jobs=1
    )
    decided = time.perf_counter()
    for name in ("rcbf", "s1conn"):
        map_weights(values[name], permutations=permutations)
    ended = time.perf_counter()
    print(found.table().round(3).to_string(index=False))
    print(f"\n{'evaluation, contributions':34} {decided - began:8.1f} s")
    print(f"{'two maps: z, p, FWE, FDR, bootstrap':34} {ended - decided:8.1f} s")
    return ended - began, alike


def mirrored_fit(
    gram: np.ndarray, signs: np.ndarray, train: np.ndarray, test: np.ndarray
) -> np.ndarray:
    rows = np.concatenate([train, train])
    s = np.concatenate([signs[train], -signs[train]])
    way = np.repeat([1.0, -1.0], len(train))
    model = SVC(kernel="precomputed").fit(
        gram[np.ix_(rows, rows)] * np.outer(way, way), s
    )
    return model.decision_function(gram[np.ix_(test, rows)] * way) - model.intercept_


def gram_loop(values: dict[str, np.ndarray], repeats: int) -> float:
    """Seconds of one permutation: outer, inner and fused machines of every fold."""
    rng, began = np.random.default_rng(0), time.perf_counter()
    grams = [(v[:, 1] - v[:, 0]) @ (v[:, 1] - v[:, 0]).T for v in values.values()]
    ready = time.perf_counter()
    for _ in range(repeats):
        signs = rng.choice([-1.0, 1.0], size=N)
        for i in range(N):
            train = np.delete(np.arange(N), i)
            inside = np.zeros((N, 3))
            for m, gram in enumerate(grams):
                mirrored_fit(gram, signs, train, np.array([i]))
                for k in range(PARTS):
                    judged = train[train % PARTS == k]
                    inside[judged, m] = mirrored_fit(
                        gram, signs, train[train % PARTS != k], judged
                    )
            x = inside[train] * signs[train][:, None]
            SVC(kernel="linear").fit(
                np.concatenate([x, -x]), np.repeat([1, 0], len(train))
            )
    print(f"  ({ready - began:.1f} s for the Gram matrices)")
    return (time.perf_counter() - ready) / repeats


def plain_fit(values: np.ndarray) -> float:
    """Seconds of one fit and its decision on the mirrored maps."""
    began = time.perf_counter()
    d = values[:-1, 1] - values[:-1, 0]
    model = SVC(kernel="linear").fit(np.concatenate([d, -d]), np.repeat([1, 0], len(d)))
    model.decision_function(values[-1:, 1] - values[-1:, 0])
    return time.perf_counter() - began


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--voxels", type=int, default=200_000)
    options.add_argument("--permutations", type=int, default=5000)
    given = options.parse_args()
    solver.duals(np.eye(3), np.ones((1, 3)), 2.0)
    evaluate(
        {"a": np.random.default_rng(0).normal(size=(12, 2, 2))},
        list("abcdefghijkl"),
        permutations=2,
        jobs=1,
    )
    values = cohort(given.voxels)
    spent, alike = ours(values, given.permutations)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{'all of it, one core':34} {spent:8.1f} s   peak {peak:.2f} GB\n")
    each = gram_loop(values, 2)
    clever = each * given.permutations
    fits = N * (1 + PARTS) * 2
    single = plain_fit(values["rcbf"])
    plain = single * fits * given.permutations
    print(
        f"The same work (no contributions, voxel p-values or bootstrap): {alike:.1f} s "
        "here, and in plain loops:"
    )
    print(
        f"{'scikit-learn on Gram matrices':34} {clever:8.0f} s   "
        f"{clever / alike:6.0f}×   "
        f"(2 permutations measured, {each:.2f} s each)"
    )
    print(
        f"{'scikit-learn on the maps':34} {plain:8.0f} s   {plain / alike:6.0f}×   "
        f"(1 fit measured, {single:.2f} s; {fits} a permutation)"
    )


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
