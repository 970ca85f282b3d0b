"""The paired support vector machine as machine code: exact, and quick to move from one
solution to its neighbours.

Minimise ½ βᵀKβ − sᵀβ over signed duals β with 0 ≤ s β ≤ box: the dual of a linear SVM
through the origin on one copy of each patient's difference image (Gram matrix K, signs
s). The box is 2 C of the mirrored problem, times how often the patient was drawn where
patients are resampled.

An active set is kept together with the tableau that principal pivots make of K:
patients on the margin are free, the others sit at a bound. The dual of one patient at a
time is moved towards a bound or the margin, along the line on which the free patients
stay on theirs. At each event one of them changes status, by one pivot. The method ends
at the exact optimum, and a model with a few patients fewer starts from the one that had
them (incremental and decremental learning of Cauwenberghs and Poggio 2001, without
bias). Why not coordinate descent: docs/decisions/013-prediction.md.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cingulum.prediction.compilation import compiled

LOWER, FREE, UPPER, LEFT_OUT, OFF_MARGIN = 0, 1, 2, 3, 4
"""Status of a patient: dual 0; on the margin; dual at the box; not part of the problem;
dual inside the box but off the margin."""

TOLERANCE = 1e-8
"""Largest violation of a margin (whose target is 1) at the end."""

NOBODY = -1
"""In place of a patient's row, where no patient is meant."""


class SvmProblem(NamedTuple):
    """What is to be solved: Gram matrix (n, n), signs (n,) (0: the patient is left
    out), box (n,), the pivot threshold of the Gram matrix, and the number of events
    after which coordinate descent takes over."""

    gram: np.ndarray
    signs: np.ndarray
    box: np.ndarray
    threshold: float
    limit: int


class Tableau(NamedTuple):
    """The pivoting tableau of the active set, and its solution: `table`
    (n, n) after the pivots, signed duals, margins K β and status of every patient."""

    table: np.ndarray
    dual: np.ndarray
    margin: np.ndarray
    status: np.ndarray


@compiled
def pivot_threshold(gram):  # type: ignore[no-untyped-def]
    """Entries on the diagonal of the table that are not above this count as zero."""
    largest = 0.0
    for k in range(len(gram)):
        largest = max(largest, gram[k, k])
    # Relative to the data, so that their unit does not matter.
    return 1e-10 * largest


@compiled
def event_limit(n):  # type: ignore[no-untyped-def]
    """Events after which coordinate descent takes over: many times what a problem
    without degenerate patients needs."""
    return 200 + 20 * n


@compiled
def problem_of(gram, signs, box):  # type: ignore[no-untyped-def]
    """The problem with the usual threshold and limit."""
    return SvmProblem(gram, signs, box, pivot_threshold(gram), event_limit(len(signs)))


@compiled
def set_margins(gram, dual, margin):  # type: ignore[no-untyped-def]
    """Write K β into `margin`."""
    for i in range(len(dual)):
        total = 0.0
        for j in range(len(dual)):
            total += gram[i, j] * dual[j]
        margin[i] = total


@compiled
def empty_tableau(n):  # type: ignore[no-untyped-def]
    """Memory for a problem of n patients, to be filled by one of the `start_` functions
    or `copy_tableau`."""
    return Tableau(np.empty((n, n)), np.empty(n), np.empty(n), np.empty(n, np.int8))


@compiled
def start_from_zero(tableau, problem):  # type: ignore[no-untyped-def]
    """Set all duals to zero."""
    gram = problem.gram
    signs = problem.signs
    for k in range(len(signs)):
        tableau.dual[k] = 0.0
        tableau.margin[k] = 0.0
        tableau.status[k] = LEFT_OUT if signs[k] == 0.0 else LOWER
        for j in range(len(signs)):
            tableau.table[k, j] = gram[k, j]


@compiled
def status_at(dual, sign, box):  # type: ignore[no-untyped-def]
    """Status of a patient whose dual is this; who is on the margin is not known."""
    if sign == 0.0:
        return LEFT_OUT
    if dual == 0.0:
        return LOWER
    # Exact, since a dual at the box was clipped to it.
    if dual == box * sign:
        return UPPER
    return OFF_MARGIN


@compiled
def start_from_duals(tableau, problem):  # type: ignore[no-untyped-def]
    """Start from the duals of a similar problem that `tableau` holds, clipped to this
    one's bounds."""
    gram = problem.gram
    signs = problem.signs
    box = problem.box
    for k in range(len(signs)):
        for j in range(len(signs)):
            tableau.table[k, j] = gram[k, j]
        size = min(max(signs[k] * tableau.dual[k], 0.0), box[k])
        tableau.dual[k] = signs[k] * size
        tableau.status[k] = status_at(tableau.dual[k], signs[k], box[k])
    set_margins(gram, tableau.dual, tableau.margin)


@compiled
def copy_tableau(target, source):  # type: ignore[no-untyped-def]
    """Make `target` equal to `source`."""
    for k in range(len(source.dual)):
        target.dual[k] = source.dual[k]
        target.margin[k] = source.margin[k]
        target.status[k] = source.status[k]
        for j in range(len(source.dual)):
            target.table[k, j] = source.table[k, j]


@compiled
def pivot(table, k, entering):  # type: ignore[no-untyped-def]
    """Exchange patient k into (or out of) the free set: a symmetric principal pivot."""
    n = len(table)
    inverse = 1.0 / table[k, k]
    row = np.empty(n)
    for j in range(n):
        row[j] = table[k, j]
    # Most of the time is spent in this loop and in `move`. With local names and an
    # early `continue` LLVM emits vector instructions for both: 2.7 times faster.
    for i in range(n):
        if i == k or row[i] == 0.0:
            continue
        factor = row[i] * inverse
        line = table[i]
        for j in range(n):
            line[j] -= factor * row[j]
    # A patient that leaves gets the other sign: that pivot undoes the one of entering.
    signed = inverse if entering else -inverse
    for i in range(n):
        table[k, i] = row[i] * signed
        table[i, k] = row[i] * signed
    table[k, k] = -inverse


@compiled
def first_event(tableau, problem, j, distance, to_margin):  # type: ignore[no-untyped-def]
    """How far the dual of patient j can move before someone's status changes, and whose
    (NOBODY where it reaches its target first)."""
    direction = 1.0 if distance > 0 else -1.0
    step = abs(distance)
    patient = NOBODY
    line = tableau.table[j]
    # With a pivot near zero, j's own margin does not move: it never gets there.
    if to_margin and line[j] > problem.threshold:
        slack = problem.signs[j] - tableau.margin[j]
        reach = max(0.0, slack / line[j] * direction)
        if reach < step:
            step = reach
            patient = j
    for k in range(len(line)):
        if tableau.status[k] != FREE:
            continue
        speed = -line[k] * direction
        # Rising and falling duals apart: with a helper for both the loop takes twice as
        # long. Compared before dividing, since few arrive earlier; rounding may leave a
        # dual a little beyond its bound.
        if speed > 0.0:
            left = (problem.box[k] if problem.signs[k] > 0 else 0.0) - tableau.dual[k]
            if left < step * speed:
                step = max(0.0, left / speed)
                patient = k
        elif speed < 0.0:
            left = tableau.dual[k] + (problem.box[k] if problem.signs[k] < 0 else 0.0)
            if left < -step * speed:
                step = max(0.0, -left / speed)
                patient = k
    return step, patient


@compiled
def move(tableau, j, step):  # type: ignore[no-untyped-def]
    """Change the dual of patient j by `step`; free patients' duals follow, so that they
    stay on the margin."""
    line = tableau.table[j]
    dual = tableau.dual
    margin = tableau.margin
    status = tableau.status
    for k in range(len(line)):
        change = line[k] * step
        if status[k] == FREE:
            dual[k] -= change
        else:
            margin[k] += change
    tableau.dual[j] += step


@compiled
def enter_margin(tableau, signs, k):  # type: ignore[no-untyped-def]
    """Patient k has reached the margin and becomes free."""
    # Exactly, so that rounding errors do not add up over the events.
    tableau.margin[k] = signs[k]
    pivot(tableau.table, k, True)
    tableau.status[k] = FREE


@compiled
def leave_margin(tableau, problem, k, rising):  # type: ignore[no-untyped-def]
    """Patient k, who was free, has reached a bound; rising: its dual was."""
    sign = problem.signs[k]
    pivot(tableau.table, k, False)
    # Exactly, so that rounding errors do not add up over the events.
    tableau.margin[k] = sign
    if rising == (sign > 0):
        tableau.dual[k] = problem.box[k] * sign
        tableau.status[k] = UPPER
    else:
        tableau.dual[k] = 0.0
        tableau.status[k] = LOWER


@compiled
def drive(tableau, problem, j, target, to_margin):  # type: ignore[no-untyped-def]
    """Move the dual of patient j, who is not free, to `target`, or until j is on the
    margin; returns the number of events."""
    events = 0
    while True:
        distance = target - tableau.dual[j]
        if distance == 0.0:
            return events
        events += 1
        step, patient = first_event(tableau, problem, j, distance, to_margin)
        direction = 1.0 if distance > 0 else -1.0
        move(tableau, j, direction * step)
        if patient == NOBODY:
            # Exactly, whatever the rounding errors of the sum.
            tableau.dual[j] = target
            return events
        if patient == j:
            enter_margin(tableau, problem.signs, j)
            return events
        rising = -tableau.table[j, patient] * direction > 0
        leave_margin(tableau, problem, patient, rising)


@compiled
def violation(tableau, signs, k):  # type: ignore[no-untyped-def]
    """By how much patient k breaks the optimality condition of its status."""
    status = tableau.status[k]
    if status == LOWER:
        return 1.0 - signs[k] * tableau.margin[k]
    if status == UPPER:
        return signs[k] * tableau.margin[k] - 1.0
    if status == OFF_MARGIN:
        return abs(signs[k] * tableau.margin[k] - 1.0)
    return 0.0


@compiled
def worst_patient(tableau, signs):  # type: ignore[no-untyped-def]
    """Who breaks the optimality conditions most; NOBODY at the optimum."""
    largest = TOLERANCE
    patient = NOBODY
    for k in range(len(signs)):
        size = violation(tableau, signs, k)
        if size > largest:
            largest = size
            patient = k
    return patient


@compiled
def solve(tableau, problem):  # type: ignore[no-untyped-def]
    """Drive the worst patient until none breaks the optimality conditions; returns
    whether the problem's limit of events sufficed; if not, coordinate descent
    finishes."""
    signs = problem.signs
    events = 0
    while events < problem.limit:
        j = worst_patient(tableau, signs)
        if j == NOBODY:
            return True
        # Inside the margin a patient needs a larger dual, beyond it a smaller one.
        target = 0.0
        bound = LOWER
        if signs[j] * tableau.margin[j] < 1.0:
            target = problem.box[j] * signs[j]
            bound = UPPER
        events += drive(tableau, problem, j, target, True)
        if tableau.status[j] != FREE:
            tableau.status[j] = bound
    descend(tableau, problem)
    return False


@compiled
def coordinate_step(tableau, problem, j):  # type: ignore[no-untyped-def]
    """The change that is best for the dual of patient j alone, within its bounds."""
    sign = problem.signs[j]
    newton_step = (sign - tableau.margin[j]) / problem.gram[j, j]
    size = sign * (tableau.dual[j] + newton_step)
    return min(max(size, 0.0), problem.box[j]) * sign - tableau.dual[j]


@compiled
def sweep(tableau, problem):  # type: ignore[no-untyped-def]
    """One round of coordinate descent; returns the largest change of a margin."""
    gram = problem.gram
    largest_change = 0.0
    for j in range(len(gram)):
        # A difference of zero has no margin that any dual could change.
        if tableau.status[j] == LEFT_OUT or gram[j, j] <= 0.0:
            continue
        step = coordinate_step(tableau, problem, j)
        if step != 0.0:
            tableau.dual[j] += step
            for k in range(len(gram)):
                tableau.margin[k] += gram[j, k] * step
            largest_change = max(largest_change, abs(step) * gram[j, j])
    return largest_change


@compiled
def descend(tableau, problem):  # type: ignore[no-untyped-def]
    """Dual coordinate descent (Hsieh et al. 2008, doi:10.1145/1390156.1390208): slow
    where patients are alike, never stuck. The table is of no use afterwards."""
    set_margins(problem.gram, tableau.dual, tableau.margin)
    # A bound on the sweeps, since patients that are nearly alike converge very slowly.
    for _ in range(20000):
        if sweep(tableau, problem) < TOLERANCE:
            return


@compiled
def leave_out(tableau, problem, group, left_out):  # type: ignore[no-untyped-def]
    """Go on to the optimum without the patients whose `group` is `left_out`, from one
    that may have them; returns whether the active set settled it."""
    for i in range(len(group)):
        if group[i] == left_out and tableau.status[i] != LEFT_OUT:
            # Only those at a bound can be driven; the status keeps i out of all events.
            if tableau.status[i] == FREE:
                pivot(tableau.table, i, False)
            tableau.status[i] = LEFT_OUT
            drive(tableau, problem, i, 0.0, False)
    return solve(tableau, problem)


@compiled
def duals(gram, weighted_signs, box, limit=0):  # type: ignore[no-untyped-def]
    """Signed duals (problem, n) of every vector of `weighted_signs` (problem, n), whose
    size says how often a patient counts; one with sign 0 is left out.

    limit: events before coordinate descent takes over (0: `event_limit`)
    """
    problems, n = weighted_signs.shape
    solutions = np.zeros((problems, n))
    tableau = empty_tableau(n)
    signs = np.empty(n)
    boxes = np.empty(n)
    events = limit or event_limit(n)
    # The arrays are filled anew for every problem, and the tableau is its memory.
    problem = SvmProblem(gram, signs, boxes, pivot_threshold(gram), events)
    for p in range(problems):
        for k in range(n):
            signs[k] = np.sign(weighted_signs[p, k])
            boxes[k] = box * abs(weighted_signs[p, k])
        start_from_zero(tableau, problem)
        solve(tableau, problem)
        for k in range(n):
            solutions[p, k] = tableau.dual[k]
    return solutions
