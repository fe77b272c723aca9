"""``--trainer.callbacks.LossContour.resolution 5``: a setting of one callback among those of the files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from nas_lightning.identity import ANALYSES, as_list

_PREFIX = "--trainer.callbacks."
_PARSERS_OWN = ("init_args", "dict_kwargs", "class_path", "help")


def split_callback_arguments(arguments: Sequence[str]) -> tuple[list[str], list[tuple[str, str, str]]]:
    """Take the settings that address a callback by its class or name out of the arguments.

    Returns:
        The other arguments; then callback, setting and value of each that was taken out.

    Raises:
        ValueError: If a setting has no value.
    """
    rest: list[str] = []
    taken: list[tuple[str, str, str]] = []
    remaining = list(arguments)
    while remaining:
        argument = remaining.pop(0)
        key, equals, value = argument.partition("=")
        callback, _, setting = key.removeprefix(_PREFIX).partition(".")
        if not key.startswith(_PREFIX) or not setting or callback in _PARSERS_OWN or setting == "help":
            rest.append(argument)
            continue
        if not equals:
            if not remaining:
                raise ValueError(f"`{key.removeprefix('--')}` needs a value")
            value = remaining.pop(0)
        taken.append((callback, setting.removeprefix("init_args."), value))
    return rest, taken


def callbacks_argument(callbacks: Any, changes: Sequence[tuple[str, str, str]]) -> str:
    """The argument that gives all callbacks, with the changes of :func:`split_callback_arguments`.

    A class, or the ``name`` of an analysis, addresses every callback that has it.

    Args:
        callbacks: The callbacks of the settings, as plain values.
        changes: Callback, setting and value of each change.

    Raises:
        ValueError: If the settings have no such callback.
    """
    given: list[dict[str, Any]] = json.loads(json.dumps(as_list(callbacks), default=str))
    for callback, setting, value in changes:
        meant = [one for one in given if callback in _names(one)]
        if not meant:
            names = ", ".join(dict.fromkeys(one["class_path"].rpartition(".")[2] for one in given))
            have = f"has {names}" if names else "is empty"
            raise ValueError(
                f"`trainer.callbacks.{callback}.{setting}`: `trainer.callbacks` {have}; a callback is"
                " addressed by its class or `name`, and added with `--trainer.callbacks+ CLASS`"
            )
        for one in meant:
            arguments = one.setdefault("init_args", {})
            *groups, last = setting.split(".")
            for group in groups:
                arguments = arguments.setdefault(group, {})
            arguments[last] = _value(value)
    return f"--trainer.callbacks={json.dumps(given)}"


def _names(callback: Mapping[str, Any]) -> set[str]:
    name = str(callback.get("class_path")).rpartition(".")[2]
    arguments = callback.get("init_args")
    own = arguments.get("name") if isinstance(arguments, Mapping) else None
    return {name, str(own or ANALYSES.get(name, name))}


def _value(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text
