"""Responses of patients to models that never saw them, as machine code.

Everything comes back in the frame in which every label is +1: a positive decision is a
correct one, whatever sign the patient's difference had in training.
"""

from __future__ import annotations

import numpy as np

from cingulum.prediction.compilation import compiled
from cingulum.prediction.svm.solver import (
    copy_tableau,
    empty_tableau,
    leave_out,
    problem_of,
    set_margins,
    solve,
    start_from_duals,
    start_from_zero,
)


@compiled
def signs_without(signs, outer, fold, inner, part):  # type: ignore[no-untyped-def]
    """The signs of those in neither the fold nor the part, and 0 for the others."""
    kept = np.zeros(len(signs))
    for i in range(len(signs)):
        if outer[i] != fold and inner[i] != part:
            kept[i] = signs[i]
    return kept


@compiled
def fit_without(model, start, settled, problem, outer, fold, inner, part):  # type: ignore[no-untyped-def]
    """Fit `model` without the fold and the part, from the tableau `start` without the
    part, where the active set settled that."""
    if settled:
        copy_tableau(model, start)
        leave_out(model, problem, outer, fold)
        return
    # Coordinate descent leaves no table to go on from.
    kept = signs_without(problem.signs, outer, fold, inner, part)
    smaller = problem_of(problem.gram, kept, problem.box)
    start_from_zero(model, smaller)
    solve(model, smaller)


@compiled
def record(model, signs, tested, cross, centre, decision, first):  # type: ignore[no-untyped-def]
    """Write the decisions and first-visit scores of the patients under test into
    `decision` and `first` (n,).

    cross: (n, n), centre: (n,) inner products of first visits, and of the mean training
    scan, with the differences
    """
    for i in range(len(signs)):
        if not tested[i]:
            continue
        score = 0.0
        for j in range(len(signs)):
            score += (cross[i, j] - centre[j]) * model.dual[j]
        decision[i] = model.margin[i] * signs[i]
        first[i] = score


@compiled
def held_out(gram, cross, middle, signs, outer, inner, penalty):  # type: ignore[no-untyped-def]
    """Decisions and scores of patients by models without them that share a Gram matrix.

    gram: (n, n) inner products of differences; cross: (n, n) of first visits with
    differences; middle: (fold, part + 1, n) of each model's mean training scan with
    them, the outer model last: scores are about that scan. With one entry per fold no
    inner responses are computed.
    signs: (problem, n); outer, inner: fold and part of each patient; penalty: 2 C of
    the mirrored problem

    Returns, of the outer models, decisions (problem, n) and scores of first visits
    (problem, n); of the inner models, which miss an outer fold and a part, the same
    (problem, fold, n), zero for patients in the fold.
    """
    problems, n = signs.shape
    folds = middle.shape[0]
    # The models of the last part miss the fold only, which makes them the outer ones.
    nobody = middle.shape[1] - 1
    inner_folds = folds * (nobody > 0)
    decision = np.zeros((problems, n))
    first = np.zeros((problems, n))
    inside = np.zeros((problems, inner_folds, n))
    inside_first = np.zeros((problems, inner_folds, n))
    box = np.full(n, penalty)
    everybody = empty_tableau(n)
    without_part = empty_tableau(n)
    model = empty_tableau(n)
    for p in range(problems):
        s = signs[p]
        problem = problem_of(gram, s, box)
        start_from_zero(everybody, problem)
        settled = solve(everybody, problem)
        for k in range(nobody + 1):
            # Not `nobody`: without inner responses that is 0, the first part as well.
            part = k
            if k == nobody:
                part = -1
            copy_tableau(without_part, everybody)
            part_settled = settled and leave_out(without_part, problem, inner, part)
            for f in range(folds):
                fit_without(
                    model, without_part, part_settled, problem, outer, f, inner, part
                )
                centre = middle[f, k]
                is_tested = outer == f
                if k == nobody:
                    record(model, s, is_tested, cross, centre, decision[p], first[p])
                    continue
                is_tested = (inner == k) & (outer != f)
                record(
                    model, s, is_tested, cross, centre, inside[p, f], inside_first[p, f]
                )
    return decision, first, inside, inside_first


@compiled
def held_out_each(grams, crosses, middles, kept, signs, penalty):  # type: ignore[no-untyped-def]
    """As `held_out` for models that each have a Gram matrix of their own, since
    something was fitted to their training patients.

    grams, crosses: (model, n, n); middles: (model, n); kept: (model, n) marks training
    patients

    Returns decisions and scores of first visits (problem, model, n), of all patients.
    """
    problems, n = signs.shape
    models = len(grams)
    decision = np.zeros((problems, models, n))
    first = np.zeros((problems, models, n))
    box = np.full(n, penalty)
    tableau = empty_tableau(n)
    for p in range(problems):
        tableau.dual[:] = 0.0
        # Each model starts where the one before ended: they differ by a few patients.
        for g in range(models):
            problem = problem_of(grams[g], signs[p] * kept[g], box)
            start_from_duals(tableau, problem)
            solve(tableau, problem)
            set_margins(crosses[g], tableau.dual, first[p, g])
            centre = 0.0
            for k in range(n):
                centre += middles[g, k] * tableau.dual[k]
            for k in range(n):
                first[p, g, k] -= centre
                decision[p, g, k] = tableau.margin[k] * signs[p, k]
    return decision, first
