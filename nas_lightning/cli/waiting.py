"""How long OpenMP's threads spin before they sleep, to be set before torch is imported."""

from __future__ import annotations

import os

# GNU's OpenMP, which PyTorch brings on Linux, spins some 300,000 times: milliseconds, in which a core does
# nothing for another process. A thousand bridge the pauses inside a step; longer ones are slept through.
_SETTINGS = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}


def sleep_while_waiting() -> None:
    """Let waiting threads sleep early, so that they do not keep a busy machine busy.

    It works before torch is imported, in this process and the processes it starts. The user's own
    ``OMP_WAIT_POLICY``, ``GOMP_SPINCOUNT`` and ``KMP_BLOCKTIME`` (LLVM's and Intel's OpenMP, in
    milliseconds) take precedence.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
