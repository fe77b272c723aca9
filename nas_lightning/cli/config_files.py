"""``--config FILE``, where the file may include others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from nas_lightning.yaml_files import read_config, read_mapping


def with_included_files(arguments: Sequence[str]) -> list[str]:
    """Put the settings of included files before those of the file that includes them.

    ``--config darts.yaml``, where ``darts.yaml`` says ``include: base.yaml``, becomes the same as ``--config
    base.yaml --config darts.yaml``. A file that includes others, and each of these, is given as the YAML text
    of its settings, and so is one with an empty group of settings, which is left out.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If ``--config`` has no file, or a file holds no settings.
    """
    expanded: list[str] = []
    remaining = iter(arguments)
    for argument in remaining:
        name, equals, value = argument.partition("=")
        if name in ("--config", "-c"):
            file = value if equals else next(remaining, "")
            if not file:
                raise ValueError(f"`config` needs a file: `{argument} FILE`")
            expanded += _settings(Path(file))
        else:
            expanded.append(argument)
    return expanded


def _settings(path: Path) -> list[str]:
    try:
        parts = read_config(path)
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f"`config`: {error}") from error
    if not parts:
        raise ValueError(f"`config`: {path} must hold settings, such as `model: {{num_cells: 8}}`")
    if parts == [read_mapping(path)]:
        return [f"--config={path}"]
    return [f"--config={yaml.safe_dump(settings)}" for settings in parts]
