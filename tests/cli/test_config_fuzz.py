"""A thousand damaged configurations go through the real parser: each parses, or ends in one plain line."""

from __future__ import annotations

import copy
import random
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from nas_lightning.cli.messages import is_user_error, one_line
from nas_lightning.cli.resolve import resolve

CONFIGS = Path(__file__).parents[2] / "configs"
SHIPPED = [path for path in sorted(CONFIGS.rglob("*.yaml")) if CONFIGS / "studies" not in path.parents]
VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 1.5, float("nan"), float("inf"), 10**30, -(10**30), "", " ", "x" * 2000, "null"),
    *("[", "\u2028", "é", "1e400", ".nan", "darts_v2:", "2020-01-01", "@x", "!!python/object:os.system"),
    *("--help", "${oc.env:HOME}", "1_000", [], {}, [[]], [None], [1, 2, 3], {"a": 1}, {"": ""}, {1: 2}),
    *(
        {"class_path": "os.system"},
        {"class_path": 1},
        {"class_path": "SGD", "init_args": 3},
        {"init_args": 1},
    ),
)
KEYS: tuple[Any, ...] = (
    *("zzz", "callbacks", "class_path", "init_args", "dict_kwargs", "config", "fit", "subcommand", "lr"),
    *("ckpt_path", "run", "experiment", "trainer", "model", "data", "__class__", "include", "genotype"),
    *(
        "seed_everything",
        "weights_only",
        "",
        "+",
        "x y",
        "a.b",
        1,
        None,
        True,
        "help",
        "print_config",
        "code",
    ),
)
MARKS = (
    "\t",
    ":",
    "{",
    "}",
    "[",
    "]",
    "- ",
    "&a ",
    "*a",
    "!x ",
    '"',
    "'",
    "|\n",
    ">\n",
    "%",
    "#",
    "\0",
    "\a",
)
TAGS = (
    "!!python/object/apply:os.system ",
    "!!binary ",
    "!!set ",
    "!!int ",
    "!!timestamp ",
    "!!omap ",
    "!!null ",
)
ANCHORS = ("*x", "&x ", "&x [*x]", "&x {a: *x}", "{<<: *x}", "{<<: [1]}", "&x {<<: 3}")
INTERNALS = (
    "Traceback",
    "Parser key",
    "NestedArg",
    "typing.",
    "<class",
    "Union",
    "Namespace(",
    "object has no",
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key in (
        list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    ):
        yield (*path, key)
        yield from places(value[key], (*path, key))


def at(content: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        content = content[key]
    return content


def damaged_lines(text: str, draw: random.Random) -> bytes:
    """The text with one line damaged, or bytes that are no UTF-8, or without its end."""
    lines = text.splitlines()
    number = draw.randrange(len(lines))
    line = lines[number]
    key, _, rest = line.partition(": ")
    column = draw.randrange(len(line) + 1)
    position = draw.randrange(len(text))
    damages: list[Callable[[], bytes]] = [
        lambda: text[:position].encode(),
        lambda: text.encode()[:position] + bytes([draw.randrange(256)]) + text.encode()[position + 1 :],
        lambda: replaced(lines, number, line[:column] + draw.choice(MARKS) + line[column:]),
        lambda: replaced(lines, number, f"{key}: {draw.choice(TAGS)}{rest}"),
        lambda: replaced(lines, number, f"{key}: {draw.choice(ANCHORS)}{rest}"),
        lambda: replaced(lines, number, f"{line}\n{line}"),
    ]
    return draw.choice(damages)()


def replaced(lines: list[str], number: int, line: str) -> bytes:
    return "\n".join([*lines[:number], line, *lines[number + 1 :]]).encode()


def damaged_settings(text: str, draw: random.Random) -> bytes:
    """The settings with one value, key or level of nesting that does not belong there."""
    content = yaml.safe_load(text)
    path = draw.choice(list(places(content)))
    parent, key = at(content, path[:-1]), path[-1]
    value = parent[key]
    mappings = [content, *(at(content, p) for p in places(content) if isinstance(at(content, p), dict))]
    odd = copy.deepcopy(draw.choice(VALUES))
    wrapped = draw.choice(
        [[value], {"x": value}, {key: value}, [value, value], str(value), {"init_args": value}]
    )
    changes: list[Callable[[], Any]] = [
        *[lambda: parent.__setitem__(key, odd)] * 3,
        lambda: parent.pop(key),
        lambda: parent.__setitem__(key, wrapped),
        lambda: draw.choice(mappings).__setitem__(draw.choice(KEYS), odd),
        lambda: parent.__setitem__(key, copy.deepcopy(at(content, draw.choice(list(places(content)))))),
    ]
    if isinstance(parent, dict):
        name = str(key)
        others = (
            name.upper(),
            f"{name}s",
            name[1:],
            f"{name}.x",
            f".{name}",
            f"--{name}",
            f"{name}\n",
            *KEYS,
        )
        changes.append(lambda: parent.__setitem__(draw.choice(others), parent.pop(key)))
    draw.choice(changes)()
    return yaml.safe_dump(content, allow_unicode=draw.random() < 0.5).encode("utf-8", "surrogatepass")


def outcome(path: Path) -> str:
    """Empty if the configuration parses, else the line that the user would read."""
    try:
        resolve(["fit", f"--config={CONFIGS / 'quickstart.yaml'}", f"--config={path}"])
    except Exception as error:
        if not is_user_error(error):
            raise
        return one_line(error)
    return ""


def check_cases(cases: range, folder: Path) -> Counter[bool]:
    for path in (*CONFIGS.glob("base.yaml"), *CONFIGS.glob("*_*.yaml")):  # what others include
        shutil.copy(path, folder)
    counts: Counter[bool] = Counter()
    for case in cases:
        draw = random.Random(case)
        shipped = draw.choice(SHIPPED)
        content = draw.choice([damaged_lines, damaged_settings, damaged_settings])(shipped.read_text(), draw)
        path = folder / "damaged.yaml"
        path.write_bytes(content)
        started = time.perf_counter()
        try:
            line = outcome(path)
            assert len(line) < 400 or "x" * 200 in line
            assert not any(word in line for word in INTERNALS)
            assert not re.search(r"[\x00-\x08\x0b-\x1f]", line)
            assert time.perf_counter() - started < 20
        except BaseException as error:
            raise AssertionError(f"case {case} of {shipped.name}: {content!r}") from error
        counts[bool(line)] += 1
    return counts


@pytest.mark.slow
@pytest.mark.timeout(900)  # over 300 seconds on a busy machine
def test_a_thousand_damaged_configurations_end_in_plain_lines(tmp_path: Path) -> None:
    counts = check_cases(range(1000), tmp_path)
    assert counts[True] > 600
    assert counts[False] > 100
