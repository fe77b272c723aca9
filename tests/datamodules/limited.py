"""Run a function in a process of its own whose files cannot grow past a limit: a full disk."""

from __future__ import annotations

import multiprocessing
import resource
from collections.abc import Callable
from multiprocessing.connection import Connection


def with_file_size_limit(function: Callable[[], None], limit: int) -> str:
    """The error that ``function`` ends with when no file may grow past ``limit`` bytes: "TYPE: message"."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(function, limit, sender))
    process.start()
    sender.close()  # so that a process that dies ends the waiting
    message = str(receiver.recv())
    process.join()
    return message


def _run(function: Callable[[], None], limit: int, sender: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        function()
    except Exception as error:
        sender.send(f"{type(error).__name__}: {error}")
    else:
        sender.send("no error")
