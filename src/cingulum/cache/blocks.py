"""Permutations in blocks that are kept: an interrupted run goes on with the next block,
and a cluster may do them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import joblib
import numpy as np

from cingulum.cache.keys import key_of
from cingulum.cache.store import Store
from cingulum.errors import InputError
from cingulum.parallel import Executor, TaskFailure, map_tasks
from cingulum.prediction.permutation import Jobs, in_blocks

Work = Callable[[np.ndarray], Any]
"""What is computed of a block of permutations: an array, or arrays by name."""

UNNAMED = ""
"""The name under which a result that is a single array is kept."""


def kept_blocks(store: Store, executor: Executor) -> Jobs:
    """Who permutes, for `evaluate`: threads here or the cluster, with every block's
    result kept in `store`."""

    def run(work: Work, blocks: Sequence[np.ndarray]) -> Iterator[Any]:
        keys = _keys(work, blocks)
        if executor.cluster:
            return _on_cluster(work, blocks, keys, store, executor)
        return _in_threads(work, blocks, keys, store, executor)

    return run


def _keys(work: Work, blocks: Sequence[np.ndarray]) -> list[str]:
    """A key for each block: of the function with the data in it, and the block."""
    content = joblib.hash(work, "sha1")
    keys = []
    for block in blocks:
        keys.append(key_of(work=content, block=joblib.hash(block, "sha1")))
    return keys


def _in_threads(
    work: Work,
    blocks: Sequence[np.ndarray],
    keys: Sequence[str],
    store: Store,
    executor: Executor,
) -> Iterator[Any]:
    # Threads share memory, so a block is known by its identity.
    key_by_id = dict(zip(map(id, blocks), keys, strict=True))

    def result_of(block: np.ndarray) -> Any:
        return _result_of(work, block, key_by_id[id(block)], store)

    return in_blocks(result_of, blocks, executor.workers(), False)


def _result_of(work: Work, block: np.ndarray, key: str, store: Store) -> Any:
    """The kept result of a block, or a new one, which is kept."""
    # Arrays by name stay so; a single array is kept under the empty name.
    kept = store.get(key)
    if kept is not None:
        return _unwrapped(kept)
    result = work(block)
    if isinstance(result, dict):
        store.put(key, result)
    else:
        store.put(key, {UNNAMED: result})
    return result


def _unwrapped(kept: dict[str, np.ndarray]) -> Any:
    """What a block gave: an array, or arrays by name."""
    if set(kept) == {UNNAMED}:
        return kept[UNNAMED]
    return kept


def _on_cluster(
    work: Work,
    blocks: Sequence[np.ndarray],
    keys: Sequence[str],
    store: Store,
    executor: Executor,
) -> Iterator[Any]:
    """Results in the order of the blocks, whichever is done first."""
    tasks = [(work, block, key, store) for block, key in zip(blocks, keys, strict=True)]
    # Sequential tests stop early, and need the blocks in their order.
    early: dict[int, Any] = {}
    following = 0
    for index, result in map_tasks(_result_of, tasks, executor):
        if isinstance(result, TaskFailure):
            raise InputError(
                f"A block of permutations could not be done: {result.reason}"
            )
        early[index] = result
        while following in early:
            yield early.pop(following)
            following += 1
