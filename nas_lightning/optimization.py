"""What a training does with its optimisers, whatever is trained."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from functools import partial
from pkgutil import resolve_name
from typing import Any

from lightning.pytorch import Trainer
from torch.optim import SGD, Optimizer


def picklable(make: Any, spec: Any, owner: type, name: str) -> Any:
    """A maker of an optimiser or a schedule that processes can exchange and that does the same.

    What jsonargparse makes of a class and its arguments holds the whole command line; a lambda has no name to
    be found by.

    Args:
        make: The maker.
        spec: The setting that it was made of; a mapping with ``class_path`` where jsonargparse made it.
        owner: The class whose setting it is.
        name: The setting, whose default may be a lambda.
    """
    if make is not None and make is _default(owner, name):
        return partial(_call_default, owner, name)
    if not isinstance(make, partial) or not isinstance(spec, Mapping) or "class_path" not in spec:
        return make
    settings = {**spec.get("init_args", {}), **spec.get("dict_kwargs", {})}
    if any(isinstance(value, Mapping) and "class_path" in value for value in settings.values()):
        return make
    return partial(resolve_name(spec["class_path"]), **settings)


def set_learning_rate(trainer: Trainer, value: float) -> None:
    """Set the first learning rate of all optimisers, and of the schedules that remember it."""
    for optimizer in trainer.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] = value
    for config in trainer.lr_scheduler_configs:
        if hasattr(config.scheduler, "base_lrs"):
            config.scheduler.base_lrs = [value] * len(config.scheduler.base_lrs)


def fuse_sgd(optimizers: Iterable[Optimizer]) -> None:
    """Let SGD update all parameters in one kernel, unless its settings choose another way."""
    for optimizer in optimizers:
        for group in optimizer.param_groups if isinstance(optimizer, SGD) else ():
            if not any(group[name] for name in ("fused", "foreach", "differentiable")):
                group["fused"] = True


def _default(owner: type, name: str) -> Any:
    return inspect.signature(owner).parameters[name].default


def _call_default(owner: type, name: str, *arguments: Any) -> Any:
    return _default(owner, name)(*arguments)
