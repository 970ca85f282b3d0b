"""Fusions that train a support vector machine of their own, as machine code: on the
responses of unimodal machines, or on a weighted sum of kernels.

Everything comes back in the frame in which every label is +1.
"""

from __future__ import annotations

import numpy as np

from cingulum.prediction.compilation import compiled
from cingulum.prediction.svm.solver import (
    empty_tableau,
    problem_of,
    solve,
    start_from_duals,
    start_from_zero,
)


@compiled
def set_labels(signs, available, outer, fold, labels):  # type: ignore[no-untyped-def]
    """Write the signs of those who train the fold's model into `labels`, and 0 for the
    others."""
    for i in range(len(labels)):
        labels[i] = 0.0
        if available[i] and outer[i] != fold:
            labels[i] = signs[i]


@compiled
def set_gram(features, gram):  # type: ignore[no-untyped-def]
    """Write the inner products of the rows of `features` (n, feature) into `gram`."""
    n, width = features.shape
    # Half of the symmetric matrix, and without BLAS: a few columns only.
    for i in range(n):
        for j in range(i + 1):
            product = 0.0
            for m in range(width):
                product += features[i, m] * features[j, m]
            gram[i, j] = product
            gram[j, i] = product


@compiled
def set_weights(features, dual, weights):  # type: ignore[no-untyped-def]
    """Write the weights (feature,) that the duals make of the rows of `features`."""
    for m in range(len(weights)):
        weights[m] = 0.0
        for i in range(len(dual)):
            weights[m] += features[i, m] * dual[i]


@compiled
def add_weighted(responses, weights, is_tested, total):  # type: ignore[no-untyped-def]
    """Add the weighted responses (n, modality) of the patients under test to `total`
    (n,)."""
    for i in range(len(total)):
        if is_tested[i]:
            for m in range(len(weights)):
                total[i] += weights[m] * responses[i, m]


@compiled
def stacked(inside, decision, first, outer, available, penalty):  # type: ignore[no-untyped-def]
    """Second machines, trained on the responses of unimodal ones.

    inside: (problem, fold, n, modality) responses of training patients; decision,
    first: (problem, n, modality) of the patients under test; available: (n,) marks the
    patients that take part

    Returns fused decisions and scores of first visits (problem, n), and the mean
    weights (problem, modality).
    """
    problems, folds, n, modalities = inside.shape
    fused = np.zeros((problems, n))
    fused_first = np.zeros((problems, n))
    mean_weights = np.zeros((problems, modalities))
    box = np.full(n, penalty)
    tableau = empty_tableau(n)
    gram = np.empty((n, n))
    weights = np.empty(modalities)
    labels = np.empty(n)
    # Responses are in the frame in which every label is +1.
    ones = np.ones(n)
    for p in range(problems):
        tableau.dual[:] = 0.0
        # Each fold starts where the one before ended: they differ by a few patients.
        for f in range(folds):
            features = inside[p, f]
            set_labels(ones, available, outer, f, labels)
            set_gram(features, gram)
            problem = problem_of(gram, labels, box)
            start_from_duals(tableau, problem)
            solve(tableau, problem)
            set_weights(features, tableau.dual, weights)
            for m in range(modalities):
                mean_weights[p, m] += weights[m] / folds
            is_tested = outer == f
            add_weighted(decision[p], weights, is_tested, fused[p])
            add_weighted(first[p], weights, is_tested, fused_first[p])
    return fused, fused_first, mean_weights


@compiled
def mean_labelled_diagonal(gram, signs):  # type: ignore[no-untyped-def]
    """Mean of the diagonal over the training patients, whose sign is not 0."""
    total = 0.0
    number = 0
    for i in range(len(signs)):
        if signs[i] != 0.0:
            total += gram[i, i]
            number += 1
    # A fold may leave nobody who has the modality.
    return total / max(1, number)


@compiled
def alignment(gram, signs):  # type: ignore[no-untyped-def]
    """How far the entries off the diagonal agree with the labels of the training
    patients (kernel-target alignment, Cristianini et al. 2001), not below zero.

    The diagonal is left out: it agrees with any labels.
    """
    agreement = 0.0
    norm = 0.0
    for i in range(len(signs)):
        if signs[i] == 0.0:
            continue
        for j in range(len(signs)):
            if j != i and signs[j] != 0.0:
                agreement += signs[i] * signs[j] * gram[i, j]
                norm += gram[i, j] ** 2
    if norm <= 0.0:
        return 0.0
    # A kernel that disagrees gets no weight, not a negative one.
    return max(0.0, agreement / np.sqrt(norm))


@compiled
def set_shares(grams, signs, shares):  # type: ignore[no-untyped-def]
    """Write each kernel's share of the sum of alignments; equal shares where no kernel
    agrees with the labels."""
    total = 0.0
    # Shares, so that weights can be compared between folds and problems.
    for m in range(len(shares)):
        shares[m] = alignment(grams[m], signs)
        total += shares[m]
    for m in range(len(shares)):
        if total > 0.0:
            shares[m] = shares[m] / total
        else:
            shares[m] = 1.0 / len(shares)


@compiled
def sum_of_kernels(grams, weights, total):  # type: ignore[no-untyped-def]
    """Write the weighted sum (n, n) of Gram matrices (modality, n, n) into `total`."""
    total[:] = 0.0
    for m in range(len(weights)):
        for i in range(len(total)):
            for j in range(len(total)):
                total[i, j] += weights[m] * grams[m, i, j]


@compiled
def fused_score(weights, cross, centre, dual):  # type: ignore[no-untyped-def]
    """Score of a first visit about the mean training scan; cross, centre (modality, n):
    inner products of the two with the differences."""
    total = 0.0
    for j in range(len(dual)):
        product = 0.0
        for m in range(len(weights)):
            product += weights[m] * (cross[m, j] - centre[m, j])
        total += product * dual[j]
    return total


@compiled
def aligned(grams, crosses, middles, signs, outer, available, penalty):  # type: ignore[no-untyped-def]
    """One machine on a weighted sum of kernels.

    Each kernel is scaled to mean diagonal 1 over the training patients and weighted by
    its `alignment` with the labels there.

    grams, crosses: (modality, n, n); middles: (modality, fold, n); signs: (problem, n),
    the labels; available: (n,) marks the patients that take part

    Returns decisions and scores of first visits (problem, n), and the mean weights
    (problem, modality).
    """
    modalities, n, _ = grams.shape
    folds = middles.shape[1]
    problems = len(signs)
    decision = np.zeros((problems, n))
    first = np.zeros((problems, n))
    mean_weights = np.zeros((problems, modalities))
    box = np.full(n, penalty)
    tableau = empty_tableau(n)
    total = np.empty((n, n))
    labels = np.empty(n)
    shares = np.empty(modalities)
    weights = np.empty(modalities)
    for p in range(problems):
        for f in range(folds):
            set_labels(signs[p], available, outer, f, labels)
            set_shares(grams, labels, shares)
            for m in range(modalities):
                mean_weights[p, m] += shares[m] / folds
                # A kernel of zeros has no scale, and nothing to add.
                size = mean_labelled_diagonal(grams[m], labels)
                weights[m] = 0.0
                if size > 0.0:
                    weights[m] = shares[m] / size
            sum_of_kernels(grams, weights, total)
            # From zero: the weights, and with them the kernel, change with the fold.
            problem = problem_of(total, labels, box)
            start_from_zero(tableau, problem)
            solve(tableau, problem)
            for i in range(n):
                if outer[i] == f:
                    decision[p, i] = tableau.margin[i] * signs[p, i]
                    first[p, i] = fused_score(
                        weights, crosses[:, i], middles[:, f], tableau.dual
                    )
    return decision, first, mean_weights
