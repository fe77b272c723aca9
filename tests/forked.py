"""A process that is forked from this one, which has everything imported, and killed where a test says."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


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
