"""Imports the modules of a subcommand without what a start need not wait for."""

from __future__ import annotations

import atexit
import gc
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

SIGNAL = "scipy.signal"


def quick_import(name: str) -> ModuleType:
    """Import a module, the first time with garbage collection off and without SciPy's signal processing.

    Importing torch and Lightning makes some million objects that live as long as the process. Searching them
    for garbage again and again takes a seventh of the import, and during the training again and again: they
    are frozen once they are there.

    Args:
        name: The module's full name.

    Returns:
        The module.
    """
    if name in sys.modules:
        return sys.modules[name]
    collecting = gc.isenabled()
    gc.disable()
    try:
        with signal_on_demand():
            return importlib.import_module(name)
    finally:
        if collecting:
            gc.freeze()
            gc.enable()
            atexit.register(gc.unfreeze)  # what is frozen at the end counts as leaked


@contextmanager
def signal_on_demand() -> Iterator[None]:
    """Let ``import scipy.signal`` load nothing until more is asked of the module than torchmetrics does.

    torchmetrics, which Lightning imports, looks at its import whether ``scipy.signal`` has the function
    ``hamming`` that SciPy has dropped, to put it back for another package, and needs no more of it. This
    loads a third of SciPy. In the block the module's place is held by a :class:`SignalOnDemand`; after it,
    whoever imports ``scipy.signal`` gets SciPy's own. Nothing happens where either is imported already.
    """
    if SIGNAL in sys.modules or "torchmetrics" in sys.modules:
        yield
        return
    sys.modules[SIGNAL] = SignalOnDemand(SIGNAL)
    try:
        yield
    finally:
        _clear()


class SignalOnDemand(ModuleType):
    """Stands for ``scipy.signal``, and loads it when anything but ``hamming`` is asked for."""

    hamming = None

    def __getattr__(self, name: str) -> Any:
        """An attribute of SciPy's own module; who only looks over all modules does not load it."""
        if name.startswith("__") and name != "__path__":  # that is asked by imports of its submodules
            raise AttributeError(name)
        _clear()
        return getattr(importlib.import_module(SIGNAL), name)


def _clear() -> None:
    if isinstance(sys.modules.get(SIGNAL), SignalOnDemand):
        del sys.modules[SIGNAL]
