"""Processes that are forked from this one, which has everything imported."""

from __future__ import annotations

import functools
import gc
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SKIPPED = 77


def run_and_kill(action: Callable[[], object], counts: Callable[[Path], bool], writes: int) -> None:
    """Run an action in another process, which kills itself with SIGKILL after some atomic writes.

    Where the kill comes is no matter of time: it follows the write that is number `writes` of those whose
    path `counts`.
    """
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        gc.freeze()
        replace, count = os.replace, 0

        def counted(source: Any, target: Any, **settings: Any) -> None:
            nonlocal count
            replace(source, target, **settings)
            count += counts(Path(target))
            if count == writes:
                os.kill(os.getpid(), signal.SIGKILL)

        os.replace = counted  # type: ignore[assignment]
        try:
            action()
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL


def in_own_process(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test in another process, so that later forks inherit nothing of it, as threads of Ray."""

    @functools.wraps(test)
    def run(*arguments: Any, **fixtures: Any) -> None:
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                test(*arguments, **fixtures)
                code = 0
            except pytest.skip.Exception:
                code = SKIPPED
            except BaseException:
                os.write(2, traceback.format_exc().encode())
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code == SKIPPED:
            pytest.skip(f"{test.__name__} was skipped in its process")
        assert code == 0

    return run
