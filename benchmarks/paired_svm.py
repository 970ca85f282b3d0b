"""How long a paired SVM takes: thousands of label sets at once, against scikit-learn one at a time."""

import time

import numpy as np
import torch
from sklearn.svm import SVC

from cingulum.prediction.paired import gram_factor, solve

torch.set_num_threads(1)
print(f"{'patients':>8} {'features':>8} {'ours µs':>9} {'sklearn µs':>11} {'ratio':>6} {'same weights':>13}")
for patients, features in ((53, 1), (53, 105), (53, 9000), (200, 9000)):
    rng = np.random.default_rng(0)
    differences = rng.normal(size=(patients, features)) + 0.1
    signs = rng.choice([-1.0, 1.0], size=(2000, patients))
    factor = gram_factor(differences)
    began = time.perf_counter()
    weights, _ = solve(factor, torch.as_tensor(signs).T.contiguous(), 1.0)
    ours = (time.perf_counter() - began) / len(signs)
    gram, decisions = differences @ differences.T, []
    mirror = np.block([[gram, -gram], [-gram, gram]])
    began = time.perf_counter()
    for flip in signs[:50]:
        model = SVC(kernel="precomputed", tol=1e-6).fit(mirror, np.concatenate([flip, -flip]))
        decisions.append(model.decision_function(mirror)[:patients] - model.intercept_)
    theirs = (time.perf_counter() - began) / 50
    mine = (factor @ weights[:, :50]).T.numpy()
    same = np.corrcoef(mine.ravel(), np.ravel(decisions))[0, 1]
    print(f"{patients:8} {features:8} {1e6 * ours:9.1f} {1e6 * theirs:11.1f} {theirs / ours:6.1f} {same:13.7f}")
