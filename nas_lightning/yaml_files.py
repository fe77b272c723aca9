"""YAML files that people write: one loader for settings, studies and genotypes."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from nas_lightning.files import is_file

# The C parser takes a tenth of the time; PyYAML may be built without it.
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_GROUPS = ("model", "data", "trainer")


class _Loader(_SafeLoader):  # type: ignore[misc]
    """Reads ``3e-4`` as a number, and refuses a mapping that names one key twice."""

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict[Hashable, Any]:
        """Build a mapping of different keys; a tag such as ``!!map`` may stand before what is none."""
        seen = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    problem = f"{key.value!r} appears twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add((key.tag, key.value))
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return mapping


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


class PythonTags(_Loader):
    """Reads what ``yaml.dump`` makes of Python's tuples, ranges and objects as plain lists and mappings."""

    def build_list(self, node: yaml.SequenceNode) -> list[Any]:
        """Build the list of a tuple, or of the arguments of an object, which is not made."""
        return list(self.construct_sequence(node, deep=True))

    def build_mapping(self, suffix: str, node: yaml.MappingNode) -> dict[Hashable, Any]:
        """Build the mapping of an object's attributes."""
        return self.construct_mapping(node, deep=True)

    def build_range(self, node: yaml.SequenceNode) -> list[int]:
        """Build the numbers of a range, 1000 at most."""
        numbers = range(*self.construct_sequence(node))
        if abs(numbers.stop - numbers.start) > 1000:
            raise ValueError("a range of more than 1000 numbers")
        return list(numbers)


_PYTHON = "tag:yaml.org,2002:python/"
PythonTags.add_constructor(f"{_PYTHON}tuple", PythonTags.build_list)
PythonTags.add_constructor(f"{_PYTHON}object/apply:builtins.range", PythonTags.build_range)
PythonTags.add_multi_constructor(
    f"{_PYTHON}object/new:", lambda loader, suffix, node: loader.build_list(node)
)
PythonTags.add_multi_constructor(f"{_PYTHON}object:", PythonTags.build_mapping)


def read_yaml(path: Path) -> Any:
    """Read a YAML file (UTF-8) of plain values; None for an empty file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not valid YAML, or a mapping names one key twice; one line that names the file
            and the line.
    """
    if not is_file(path):
        raise FileNotFoundError(f"{path} is not a file")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8 (byte {error.start})") from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, what: str, loader: Any = _Loader) -> Any:
    """Read YAML of plain values; None for an empty text. ``PythonTags`` as loader reads Python's tags.

    Raises:
        ValueError: If it is not valid YAML, or a mapping names one key twice; one line that begins with
            ``what``.
    """
    try:
        return yaml.load(text, loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = "" if mark is None else f" (line {mark.line + 1})"
        raise ValueError(f"{what} is no valid YAML: {error.problem or error.context}{where}") from error
    except (yaml.YAMLError, RecursionError, TypeError) as error:
        raise ValueError(f"{what} is no valid YAML: {' '.join(str(error).split())}") from error
    except Exception as error:  # whatever PyYAML makes of `!!timestamp 7`
        raise ValueError(f"{what} is no valid YAML: a value is not what its tag says") from error


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping with strings as keys; empty for an empty file.

    A ValueError names the file if it holds anything else.
    """
    content = read_yaml(path)
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ValueError(f"{path} must hold settings, such as `name: mine`")
    return content


def read_config(path: Path, including: tuple[Path, ...] = ()) -> list[dict[str, Any]]:
    """Read the settings of a configuration file and of the files that its key ``include`` names.

    ``include`` is one file or a list, relative to the file that includes them. Included files come before it,
    and later settings win; files without settings are left out. No file may include itself.
    The paths of ``code`` are relative to the file as well.
    """
    if path.resolve() in including:
        raise ValueError(f"{path} includes itself: `include` must not go round in a circle")
    settings = {
        key: value for key, value in read_mapping(path).items() if key not in _GROUPS or value is not None
    }
    for key, value in settings.items():
        if key in _GROUPS and not isinstance(value, dict | str if key == "data" else dict):
            raise ValueError(f"{path}: `{key}` (={_short(value)}) must be a mapping of settings")
        if "." in key:
            outer, _, inner = key.partition(".")
            raise ValueError(f"{path}: `{key}` must be nested: `{outer}: {{{inner}: ...}}`")
        _check_keys(path, key, value)
    if isinstance(code := settings.get("code"), str | list):
        entries = [code] if isinstance(code, str) else code
        settings["code"] = [str(path.parent.absolute() / e) if isinstance(e, str) else e for e in entries]
    included = settings.pop("include", None) or []
    names = [included] if isinstance(included, str) else included
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{path}: `include` (={_short(included)}) must be a file or a list of files")
    parts: list[dict[str, Any]] = []
    for name in names:
        parts += read_config(path.parent / name, (*including, path.resolve()))
    return [*parts, settings] if settings else parts


def _check_keys(path: Path, where: str, value: Any) -> None:
    """Refuse keys of nested settings that are no text; an empty one would name the mapping itself."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        if isinstance(value, dict) and (not isinstance(key, str) or not key):
            raise ValueError(f"{path}: the key {key!r} in `{where}` must be the name of a setting")
        _check_keys(path, key if isinstance(key, str) else where, inner)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
