"""Permutations in blocks that are kept: an interrupted run goes on with the next block,
and a cluster may do them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import joblib
import numpy as np

from cingulum.cache.store import Store, key_of
from cingulum.errors import InputError
from cingulum.parallel import Executor, TaskFailure, map_tasks
from cingulum.prediction.permutation import Jobs, in_blocks


def kept(store: Store, executor: Executor) -> Jobs:
    """Who permutes, for `evaluate`: threads here or the cluster, with every block's
    result kept in `store`."""

    def by(
        work: Callable[[np.ndarray], Any], blocks: Sequence[np.ndarray]
    ) -> Iterator[Any]:
        content = joblib.hash(work, "sha1")
        keys = [
            key_of(work=content, block=joblib.hash(block, "sha1")) for block in blocks
        ]
        if executor.cluster:
            return _by_cluster(work, blocks, keys, store, executor)
        numbered = dict(zip(map(id, blocks), keys, strict=True))
        return in_blocks(
            lambda block: _block(work, block, numbered[id(block)], store),
            blocks,
            executor.workers(),
            False,
        )

    return by


def _block(
    work: Callable[[np.ndarray], Any], block: np.ndarray, key: str, store: Store
) -> Any:
    found = store.get(key)
    if found is None:
        result = work(block)
        store.put(key, result if isinstance(result, dict) else {"": result})
        return result
    return found[""] if set(found) == {""} else found


def _by_cluster(
    work: Callable[[np.ndarray], Any],
    blocks: Sequence[np.ndarray],
    keys: list[str],
    store: Store,
    executor: Executor,
) -> Iterator[Any]:
    units = [(work, block, key, store) for block, key in zip(blocks, keys, strict=True)]
    early: dict[int, Any] = {}
    following = 0
    for i, result in map_tasks(_block, units, executor):
        if isinstance(result, TaskFailure):
            raise InputError(
                f"A block of permutations could not be done: {result.reason}"
            )
        early[i] = result
        while following in early:
            yield early.pop(following)
            following += 1
