"""The paired support vector machine as machine code: exact, and from one solution to
its neighbours.

Minimise ½ βᵀKβ − sᵀβ over signed duals β with 0 ≤ s β ≤ box: the dual of a linear SVM
through the origin on one copy of each patient's difference image (Gram matrix K, signs
s; the box is 2 C of the mirrored problem, times how often the patient was drawn where
patients are resampled).

An active set is kept with the table that principal pivots make of K: patients on the
margin are free, the others sit at a bound. A patient is driven to a bound or to the
margin along the line on which the free ones stay on theirs; at each event one of them
changes place, by one pivot. It ends at the exact optimum, and a model with some
patients fewer starts from the one that had them (incremental and decremental learning
of Cauwenberghs and Poggio 2001, without bias).
Why not coordinate descent: docs/decisions/013-prediction.md.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

LOW, FREE, UP, OUT, BETWEEN = 0, 1, 2, 3, 4
"""Where a patient is: dual 0, on the margin, dual at the box, left out; dual inside the
box but off the margin."""

TOLERANCE = 1e-8
"""Largest violation of a margin (whose target is 1) at the end."""


class Tableau(NamedTuple):
    """A solution: table (n, n) of pivots, signed duals, margins K β, and where each
    patient is."""

    table: np.ndarray
    dual: np.ndarray
    margin: np.ndarray
    place: np.ndarray


@njit(cache=True, nogil=True, error_model="numpy")
def tiny(gram):  # type: ignore[no-untyped-def]
    """What counts as nil on the diagonal of the table."""
    largest = 0.0
    for k in range(len(gram)):
        largest = max(largest, gram[k, k])
    return 1e-10 * largest


@njit(cache=True, nogil=True, error_model="numpy")
def margins(gram, dual, out):  # type: ignore[no-untyped-def]
    for i in range(len(dual)):
        total = 0.0
        for j in range(len(dual)):
            total += gram[i, j] * dual[j]
        out[i] = total


@njit(cache=True, nogil=True, error_model="numpy")
def empty(n):  # type: ignore[no-untyped-def]
    return Tableau(np.empty((n, n)), np.empty(n), np.empty(n), np.empty(n, np.int8))


@njit(cache=True, nogil=True, error_model="numpy")
def begin(at, gram, signs):  # type: ignore[no-untyped-def]
    for k in range(len(signs)):
        at.dual[k] = at.margin[k] = 0.0
        at.place[k] = OUT if signs[k] == 0.0 else LOW
        for j in range(len(signs)):
            at.table[k, j] = gram[k, j]


@njit(cache=True, nogil=True, error_model="numpy")
def begin_near(at, gram, signs, box):  # type: ignore[no-untyped-def]
    """Begin from the duals of another problem that `at` holds."""
    for k in range(len(signs)):
        for j in range(len(signs)):
            at.table[k, j] = gram[k, j]
        at.dual[k] = signs[k] * min(max(signs[k] * at.dual[k], 0.0), box[k])
        if signs[k] == 0.0:
            at.place[k] = OUT
        elif at.dual[k] == 0.0:
            at.place[k] = LOW
        else:
            at.place[k] = UP if at.dual[k] == box[k] * signs[k] else BETWEEN
    margins(gram, at.dual, at.margin)


@njit(cache=True, nogil=True, error_model="numpy")
def copy(to, source):  # type: ignore[no-untyped-def]
    for k in range(len(source.dual)):
        to.dual[k], to.margin[k], to.place[k] = (
            source.dual[k],
            source.margin[k],
            source.place[k],
        )
        for j in range(len(source.dual)):
            to.table[k, j] = source.table[k, j]


@njit(cache=True, nogil=True, error_model="numpy")
def pivot(table, k, entering):  # type: ignore[no-untyped-def]
    """Exchange patient k into (or out of) the free set: a symmetric principal pivot."""
    n, r = len(table), 1.0 / table[k, k]
    row = np.empty(n)
    for j in range(n):
        row[j] = table[k, j]
    for i in range(n):
        f = row[i] * r
        if i != k and f != 0.0:
            line = table[i]
            for j in range(n):
                line[j] -= f * row[j]
    sign = r if entering else -r
    for i in range(n):
        table[k, i] = row[i] * sign
        table[i, k] = row[i] * sign
    table[k, k] = -r


@njit(cache=True, nogil=True, error_model="numpy")
def drive(at, signs, box, j, target, to_margin, small):  # type: ignore[no-untyped-def]
    """Move the dual of j, which is not free, to its target, or until j is on the
    margin; returns the events."""
    events = 0
    while True:
        room = target - at.dual[j]
        if room == 0.0:
            return events
        events += 1
        sign, best, first, line = (
            (1.0 if room > 0 else -1.0),
            abs(room),
            -1,
            at.table[j],
        )
        if to_margin and line[j] > small:
            reach = max(0.0, (signs[j] - at.margin[j]) / line[j] * sign)
            if reach < best:
                best, first = reach, j
        for k in range(len(signs)):
            if at.place[k] == FREE:
                speed = -line[k] * sign
                if speed > 0.0:
                    left = (box[k] if signs[k] > 0 else 0.0) - at.dual[k]
                    if left < best * speed:
                        best, first = max(0.0, left / speed), k
                elif speed < 0.0:
                    left = at.dual[k] + (box[k] if signs[k] < 0 else 0.0)
                    if left < -best * speed:
                        best, first = max(0.0, -left / speed), k
        step = sign * best
        for k in range(len(signs)):
            if at.place[k] == FREE:
                at.dual[k] -= line[k] * step
            else:
                at.margin[k] += line[k] * step
        at.dual[j] += step
        if first == -1:
            at.dual[j] = target
            return events
        if first == j:
            at.margin[j] = signs[j]
            pivot(at.table, j, True)
            at.place[j] = FREE
            return events
        up = (-line[first] * sign > 0) == (signs[first] > 0)
        at.dual[first] = box[first] * signs[first] if up else 0.0
        at.margin[first] = signs[first]
        pivot(at.table, first, False)
        at.place[first] = UP if up else LOW


@njit(cache=True, nogil=True, error_model="numpy")
def optimise(at, gram, signs, box, small, limit):  # type: ignore[no-untyped-def]
    """Drive the worst patient until none is wrong; what `limit` events do not settle,
    coordinate descent does."""
    events = 0
    while events < limit:
        worst, j = TOLERANCE, -1
        for k in range(len(signs)):
            wrong = 0.0
            if at.place[k] == LOW:
                wrong = 1.0 - signs[k] * at.margin[k]
            elif at.place[k] == UP:
                wrong = signs[k] * at.margin[k] - 1.0
            elif at.place[k] == BETWEEN:
                wrong = abs(signs[k] * at.margin[k] - 1.0)
            if wrong > worst:
                worst, j = wrong, k
        if j < 0:
            return True
        rising = signs[j] * at.margin[j] < 1.0
        events += drive(
            at, signs, box, j, box[j] * signs[j] if rising else 0.0, True, small
        )
        if at.place[j] != FREE:
            at.place[j] = UP if rising else LOW
    descend(at, gram, signs, box)
    return False


@njit(cache=True, nogil=True, error_model="numpy")
def descend(at, gram, signs, box):  # type: ignore[no-untyped-def]
    """Dual coordinate descent (Hsieh et al. 2008, doi:10.1145/1390156.1390208): slow
    where patients are alike, never stuck. The table is of no use afterwards."""
    margins(gram, at.dual, at.margin)
    for _ in range(20000):
        change = 0.0
        for j in range(len(signs)):
            if at.place[j] == OUT or gram[j, j] <= 0.0:
                continue
            wanted = signs[j] * (at.dual[j] + (signs[j] - at.margin[j]) / gram[j, j])
            step = min(max(wanted, 0.0), box[j]) * signs[j] - at.dual[j]
            if step != 0.0:
                at.dual[j] += step
                for k in range(len(signs)):
                    at.margin[k] += gram[j, k] * step
                change = max(change, abs(step) * gram[j, j])
        if change < TOLERANCE:
            return


@njit(cache=True, nogil=True, error_model="numpy")
def leave_out(at, gram, signs, box, member, which, small, limit):  # type: ignore[no-untyped-def]
    """The optimum without the patients whose member is `which`, from one that may have
    them."""
    for i in range(len(signs)):
        if member[i] == which and at.place[i] != OUT:
            if at.place[i] == FREE:
                pivot(at.table, i, False)
            at.place[i] = OUT
            drive(at, signs, box, i, 0.0, False, small)
    return optimise(at, gram, signs, box, small, limit)


@njit(cache=True, nogil=True, error_model="numpy")
def duals(gram, signs, box, limit=0):  # type: ignore[no-untyped-def]
    """Signed duals (problem, n) of every sign vector (problem, n), whose size says how
    often a patient counts; one with sign 0 is left out.

    limit: events before coordinate descent takes over (default: 200 + 20 n)
    """
    problems, n = signs.shape
    found, at = np.zeros((problems, n)), empty(n)
    small, limit = tiny(gram), (limit if limit else 200 + 20 * n)
    s, room = np.empty(n), np.empty(n)
    for p in range(problems):
        for k in range(n):
            s[k] = 1.0 if signs[p, k] > 0 else (-1.0 if signs[p, k] < 0 else 0.0)
            room[k] = box * abs(signs[p, k])
        begin(at, gram, s)
        optimise(at, gram, s, room, small, limit)
        for k in range(n):
            found[p, k] = at.dual[k]
    return found


@njit(cache=True, nogil=True, error_model="numpy")
def held_out(gram, cross, middle, signs, outer, inner, folds, parts, penalty):  # type: ignore[no-untyped-def]
    """Responses of patients to models that never saw them, in the frame in which every
    label is +1.

    gram: (n, n) inner products of differences; cross: (n, n) of first visits with
    differences; middle: (fold, part + 1, n) of each model's mean training scan with
    them, the outer model last: scores are about that scan
    signs: (problem, n); outer, inner: fold and part of each patient; parts 0: no inner
    responses are wanted; penalty: 2 C of the mirrored problem

    Returns, of the outer models, decisions (problem, n) and scores of first visits
    (problem, n); of the inner models, which miss an outer fold and a part, the same
    (problem, fold, n), zero for patients in the fold.
    """
    problems, n = signs.shape
    decision, first = np.zeros((problems, n)), np.zeros((problems, n))
    wanted, box = folds if parts else 0, np.full(n, penalty)
    inside, inside_first = (
        np.zeros((problems, wanted, n)),
        np.zeros((problems, wanted, n)),
    )
    base, part, at, kept = empty(n), empty(n), empty(n), np.empty(n)
    small, limit = tiny(gram), 200 + 20 * n
    for p in range(problems):
        s = signs[p]
        begin(base, gram, s)
        sound = optimise(base, gram, s, box, small, limit)
        for k in range(
            parts + 1
        ):  # the last part is nobody: those are the outer models
            copy(part, base)
            sound_part = sound and leave_out(part, gram, s, box, inner, k, small, limit)
            for f in range(folds):
                if sound_part:
                    copy(at, part)
                    leave_out(at, gram, s, box, outer, f, small, limit)
                else:
                    for i in range(n):
                        kept[i] = (
                            0.0
                            if outer[i] == f or (k < parts and inner[i] == k)
                            else s[i]
                        )
                    begin(at, gram, kept)
                    optimise(at, gram, kept, box, small, limit)
                for i in range(n):
                    if (
                        (outer[i] == f)
                        if k == parts
                        else (inner[i] == k and outer[i] != f)
                    ):
                        score = 0.0
                        for j in range(n):
                            score += (cross[i, j] - middle[f, k, j]) * at.dual[j]
                        if k == parts:
                            decision[p, i], first[p, i] = at.margin[i] * s[i], score
                        else:
                            inside[p, f, i], inside_first[p, f, i] = (
                                at.margin[i] * s[i],
                                score,
                            )
    return decision, first, inside, inside_first


@njit(cache=True, nogil=True, error_model="numpy")
def held_out_each(grams, crosses, middles, kept, signs, penalty):  # type: ignore[no-untyped-def]
    """As `held_out` for models that each have a Gram matrix of their own, since
    something was fitted to their
    training patients: grams, crosses (model, n, n), middles (model, n), kept (model, n)
        marks training patients.

    Returns decisions and scores of first visits (problem, model, n), of all patients.
    """
    problems, n = signs.shape
    models, box = len(grams), np.full(n, penalty)
    decision, first = np.zeros((problems, models, n)), np.zeros((problems, models, n))
    at, limit, s, small = empty(n), 200 + 20 * n, np.empty(n), np.empty(models)
    for g in range(models):
        small[g] = tiny(grams[g])
    for p in range(problems):
        for k in range(n):
            at.dual[k] = 0.0
        for g in range(
            models
        ):  # each begins where the one before ended: they differ by a few patients
            for k in range(n):
                s[k] = signs[p, k] * kept[g, k]
            begin_near(at, grams[g], s, box)
            optimise(at, grams[g], s, box, small[g], limit)
            margins(crosses[g], at.dual, first[p, g])
            centre = 0.0
            for k in range(n):
                centre += middles[g, k] * at.dual[k]
            for k in range(n):
                first[p, g, k] -= centre
                decision[p, g, k] = at.margin[k] * signs[p, k]
    return decision, first


@njit(cache=True, nogil=True, error_model="numpy")
def stacked(inside, decision, first, outer, here, penalty):  # type: ignore[no-untyped-def]
    """Second machines, trained on the responses of first ones, all in the frame in
    which every label is +1.

    inside: (problem, fold, n, modality) responses of training patients; decision,
    first: (problem, n, modality) of the patients under test; here: (n,) marks the
        patients that take part

    Returns fused decisions and scores of first visits (problem, n), and the mean
    weights (problem, modality).
    """
    problems, folds, n, many = inside.shape
    found, score, weights = (
        np.zeros((problems, n)),
        np.zeros((problems, n)),
        np.zeros((problems, many)),
    )
    at, gram, limit, w, box = (
        empty(n),
        np.empty((n, n)),
        200 + 20 * n,
        np.empty(many),
        np.full(n, penalty),
    )
    s = np.empty(n)
    for p in range(problems):
        for k in range(n):
            at.dual[k] = 0.0
        for f in range(folds):
            x = inside[p, f]
            for i in range(n):
                s[i] = 1.0 if here[i] and outer[i] != f else 0.0
                for j in range(i + 1):
                    product = 0.0
                    for m in range(many):
                        product += x[i, m] * x[j, m]
                    gram[i, j] = gram[j, i] = product
            begin_near(at, gram, s, box)
            optimise(at, gram, s, box, tiny(gram), limit)
            for m in range(many):
                w[m] = 0.0
                for i in range(n):
                    w[m] += x[i, m] * at.dual[i]
                weights[p, m] += w[m] / folds
            for i in range(n):
                if outer[i] == f:
                    for m in range(many):
                        found[p, i] += w[m] * decision[p, i, m]
                        score[p, i] += w[m] * first[p, i, m]
    return found, score, weights


@njit(cache=True, nogil=True, error_model="numpy")
def aligned(grams, crosses, middles, signs, outer, folds, here, penalty):  # type: ignore[no-untyped-def]
    """One machine on a weighted sum of kernels: (problem, n) decisions, scores of first
    visits, (problem, modality) mean weights. Labels are the signs; decisions and scores
    come back in the frame in which they are +1.

    Each kernel has mean diagonal 1 over the training patients and is weighted by how
    its other entries agree with the labels there (kernel-target alignment, Cristianini
    et al. 2001), not below zero; grams, crosses (modality, n, n), middles (modality,
    fold, n).
    """
    many, n, _ = grams.shape
    problems, box = len(signs), np.full(n, penalty)
    found, score, weights = (
        np.zeros((problems, n)),
        np.zeros((problems, n)),
        np.zeros((problems, many)),
    )
    at, total, cross, s = empty(n), np.empty((n, n)), np.empty((n, n)), np.empty(n)
    agree, scale = np.zeros(many), np.zeros(many)
    for p in range(problems):
        for f in range(folds):
            number = 0
            for i in range(n):
                s[i] = signs[p, i] if here[i] and outer[i] != f else 0.0
                number += s[i] != 0.0
                for j in range(n):
                    total[i, j] = cross[i, j] = 0.0
            agreed = 0.0
            for m in range(many):
                size, norm, agree[m] = 0.0, 0.0, 0.0
                for i in range(n):
                    if s[i] != 0.0:
                        size += grams[m, i, i]
                        for j in range(n):
                            if j != i and s[j] != 0.0:
                                agree[m] += s[i] * s[j] * grams[m, i, j]
                                norm += grams[m, i, j] ** 2
                scale[m] = size / max(1, number)
                agree[m] = max(0.0, agree[m] / np.sqrt(norm)) if norm > 0.0 else 0.0
                agreed += agree[m]
            for m in range(many):
                agree[m] = agree[m] / agreed if agreed > 0.0 else 1.0 / many
                weights[p, m] += agree[m] / folds
                if scale[m] > 0.0:
                    for i in range(n):
                        for j in range(n):
                            total[i, j] += agree[m] / scale[m] * grams[m, i, j]
                            cross[i, j] += (
                                agree[m]
                                / scale[m]
                                * (crosses[m, i, j] - middles[m, f, j])
                            )
            begin(at, total, s)
            optimise(at, total, s, box, tiny(total), 200 + 20 * n)
            for i in range(n):
                if outer[i] == f:
                    found[p, i] = at.margin[i] * signs[p, i]
                    for j in range(n):
                        score[p, i] += cross[i, j] * at.dual[j]
    return found, score, weights


@njit(cache=True, nogil=True, error_model="numpy")
def mirrored_auc(decisions):  # type: ignore[no-untyped-def]
    """AUC of decisions (problem, n) against their mirror images: P(d_i + d_j > 0), ties
    half."""
    problems, n = decisions.shape
    found = np.empty(problems)
    for p in range(problems):
        d, wins = decisions[p], 0.0
        for i in range(n):
            for j in range(n):
                total = d[i] + d[j]
                wins += (total > 0.0) + 0.5 * (total == 0.0)
        found[p] = wins / (n * n)
    return found


@njit(cache=True, nogil=True, error_model="numpy")
def two_sample_auc(positive, negative):  # type: ignore[no-untyped-def]
    """P(positive > negative), ties half, of rows (problem, n)."""
    problems, n = positive.shape
    found = np.empty(problems)
    for p in range(problems):
        wins = 0.0
        for i in range(n):
            for j in range(negative.shape[1]):
                wins += (positive[p, i] > negative[p, j]) + 0.5 * (
                    positive[p, i] == negative[p, j]
                )
        found[p] = wins / (n * negative.shape[1])
    return found


@njit(cache=True, nogil=True, error_model="numpy")
def count_extremes(null, observed, hits, largest):  # type: ignore[no-untyped-def]
    """Add up, per feature, how many permuted values null (permutation, feature) are at
    least as large as the observed one in size, and keep the largest of every
    permutation; in place."""
    for b in range(len(null)):
        row, top = null[b], largest[b]
        for f in range(len(row)):
            size = abs(row[f])
            hits[f] += size >= observed[f] * np.float32(1 - 1e-6)
            top = max(top, size)
        largest[b] = top
