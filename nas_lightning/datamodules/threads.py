"""Work that threads do ahead of the one that asks for it, in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from threading import Event
from typing import TypeVar

AHEAD = 3
"""Batches that are prepared before they are asked for."""
_AT_ONCE = 64
"""Small items that a thread takes at a time: with fewer, threads wait for each other."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def prepared_ahead(
    items: Iterable[Item],
    prepare: Callable[[Item], Result],
    ahead: int = AHEAD,
    threads: int = 1,
    at_once: int = 1,
) -> Generator[Result, None, None]:
    """``prepare(item)`` of all items, in order; threads work on the next ones meanwhile.

    The items are taken in the caller's thread. An error of ``prepare`` is raised in place of the results of
    its portion. The threads end with the iterator, also where that is left early: what they have not begun is
    dropped.

    Args:
        items: What there is to prepare.
        prepare: Called in a thread for each item.
        ahead: Most portions in work while the caller has one.
        threads: Most portions in work at the same time.
        at_once: Items of a portion.
    """
    remaining, is_left = iter(items), Event()
    pending: deque[Future[list[Result]]] = deque()

    def work(some: list[Item]) -> list[Result]:
        return [prepare(item) for item in some if not is_left.is_set()]

    with ThreadPoolExecutor(threads, thread_name_prefix="images") as pool:
        try:
            while some := list(islice(remaining, at_once)):
                pending.append(pool.submit(work, some))
                if len(pending) > ahead:
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()
        finally:
            is_left.set()
            for future in pending:
                future.cancel()


def on_all_cores(
    items: Iterable[Item], prepare: Callable[[Item], Result], at_once: int = _AT_ONCE
) -> Generator[Result, None, None]:
    """As :func:`prepared_ahead`, for many small items: a thread for each core, two portions for a thread."""
    threads = len(os.sched_getaffinity(0))
    return prepared_ahead(items, prepare, 2 * threads, threads, at_once)
