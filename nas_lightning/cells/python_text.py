"""Reads the Python values that programs print, without evaluating anything."""

from __future__ import annotations

import ast
import re
import warnings
from dataclasses import dataclass, field
from typing import Any

# A genotype of 20 nodes has about 2,000 characters; far longer texts do not reach the parser.
MAX_LENGTH = 100_000
_MAX_RANGE = 1000
_BRACKETS = {")": "(", "]": "[", "}": "{"}
_TOKEN = re.compile(
    r"""'''.*?'''|\"\"\".*?\"\"\"|'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"|\#[^\n]*|[()\[\]{}]""", re.DOTALL
)
# How NumPy and PyTorch print scalars and arrays; list and its like.
_SCALARS = re.compile(r"u?int\d*_?|float\d*_?|str_?|bool_?")
_SEQUENCES = frozenset(
    {"array", "asarray", "tensor", "list", "tuple", "as_tensor", "set", "frozenset", "sorted"}
)
_JSON_NAMES = {"null": None, "true": True, "false": False, "nan": float("nan"), "inf": float("inf")}


@dataclass(frozen=True)
class Call:
    """A call of some other name, such as ``Genotype(...)``, with its arguments as values."""

    name: str
    positional: list[Any] = field(default_factory=list)
    keywords: dict[str, Any] = field(default_factory=dict)


class NotAValue(ValueError):
    """A text is Python, but more than a value: it would have to be run."""


def bracketed(text: str, start: int) -> str | None:
    """The text from the bracket at ``start`` to the one that closes it; None if none does.

    Strings and comments are skipped. The search ends after ``MAX_LENGTH`` characters.
    """
    opened: list[str] = []
    for token in _TOKEN.finditer(text, start, start + MAX_LENGTH):
        bracket = token.group()
        if bracket in ("(", "[", "{"):
            opened.append(bracket)
        elif bracket in _BRACKETS:
            if not opened or opened.pop() != _BRACKETS[bracket]:
                return None
            if not opened:
                return text[start : token.end()]
    return None


def read_value(text: str) -> Any:
    """Read an expression of lists, tuples, mappings, strings and numbers.

    ``range(2, 6)``, ``list(range(2, 6))``, ``dict(a=1)``, ``np.int64(2)``, ``array([2, 3])`` and
    ``tensor(0.5)`` are read as what they stand for, a call of a capitalised name as a :class:`Call`.

    Raises:
        NotAValue: If it names variables, or calls anything else.
        ValueError: If it is no Python.
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(f"a text of {len(text)} characters is too long (limit {MAX_LENGTH})")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about backslashes and the like in other people's strings
            tree = ast.parse(text.strip(), mode="eval").body
        return _value(tree)
    except (NotAValue, OverflowError):
        raise
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else str(error) or type(error).__name__
        raise ValueError(f"{shown(text)} cannot be read ({reason})") from None


def _value(node: ast.expr) -> Any:
    match node:
        case ast.List(elements) | ast.Tuple(elements) | ast.Set(elements):
            return _elements(elements)
        case ast.Dict(keys, values) if None not in keys:
            names = [_value(key) for key in keys if key is not None]
            return _mapping(names, [_value(value) for value in values])
        case ast.Constant(value) if value is None or type(value) in (str, int, float, bool):
            return value
        case ast.UnaryOp(ast.USub(), ast.Constant(int() | float() as number)) if type(number) is not bool:
            return -number
        case ast.Name(name) if name in _JSON_NAMES:
            return _JSON_NAMES[name]
        case ast.ListComp(ast.Name(name), [ast.comprehension(ast.Name(same), numbers, [], 0)]) if (
            name == same
        ):
            return _value(numbers)  # [i for i in range(2, 6)]
        case ast.Call(ast.Name() | ast.Attribute() as function, arguments, keywords):
            return _called(node, _last_name(function), arguments, keywords)
    raise _refusal(node)


def _elements(nodes: list[ast.expr]) -> list[Any]:
    values: list[Any] = []
    for node in nodes:
        if isinstance(node, ast.Starred):
            more = _value(node.value)
            if not isinstance(more, list):
                raise _refusal(node)
            values += more
        else:
            values.append(_value(node))
    return values


def _mapping(keys: list[Any], values: list[Any]) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key, value in zip(keys, values, strict=True):
        if not isinstance(key, str | int) or isinstance(key, bool):
            raise NotAValue(f"{key!r} is no key of a genotype")
        if str(key) in mapping:
            raise ValueError(f"key {key!r} is given twice")
        mapping[str(key)] = value
    return mapping


def _called(node: ast.expr, name: str, arguments: list[ast.expr], keywords: list[ast.keyword]) -> Any:
    if name in ("range", "arange") and 1 <= len(arguments) <= 3 and not keywords:
        return _range(node, [_value(argument) for argument in arguments])
    if _SCALARS.fullmatch(name) and len(arguments) == 1:
        value = _value(arguments[0])
        if not isinstance(value, list | dict | Call):
            return value
    elif name in _SEQUENCES and len(arguments) == 1:
        value = _value(arguments[0])
        if not isinstance(value, dict | Call):
            return value
    elif name in ("dict", "OrderedDict"):
        return _dict(node, arguments, keywords)
    elif name == "Edge":
        return [*_elements(arguments), *(_value(keyword.value) for keyword in keywords)]
    elif name[:1].isupper():
        named: dict[str, Any] = {}
        for keyword in keywords:
            if keyword.arg is None:
                raise _refusal(node)
            if keyword.arg in named:
                raise ValueError(f"argument {keyword.arg!r} is given twice")
            named[keyword.arg] = _value(keyword.value)
        return Call(name, _elements(arguments), named)
    raise _refusal(node)


def _range(node: ast.expr, bounds: list[Any]) -> list[int]:
    if not all(type(bound) is int for bound in bounds) or (len(bounds) == 3 and bounds[2] == 0):
        raise _refusal(node)
    numbers = range(*bounds)
    # `len` of an enormous range overflows; its bounds do not.
    if abs(numbers.stop - numbers.start) > _MAX_RANGE:
        raise ValueError(f"range({bounds[0]}, ...) names too many nodes")
    return list(numbers)


def _dict(node: ast.expr, arguments: list[ast.expr], keywords: list[ast.keyword]) -> dict[str, Any]:
    pairs: list[Any] = [[keyword.arg, _value(keyword.value)] for keyword in keywords]
    for argument in arguments:
        given = _value(argument)
        if isinstance(given, dict):
            given = [[key, value] for key, value in given.items()]
        pairs += given if isinstance(given, list) else [given]
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise _refusal(node)
    return _mapping([key for key, _ in pairs], [value for _, value in pairs])


def _last_name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _refusal(node: ast.expr) -> NotAValue:
    return NotAValue(
        f"{_source(node)} is not allowed; only lists, tuples, operation names, node numbers and "
        "range(start, stop) are"
    )


def _source(node: ast.AST) -> str:
    try:
        return shown(ast.unparse(node))
    except (RecursionError, ValueError):  # ValueError: an integer of thousands of digits
        return "an expression"


def shown(text: str) -> str:
    """The start of a text in one line, for messages."""
    line = " ".join(text[:400].split())
    return repr(line if len(line) <= 60 and len(text) <= 400 else f"{line[:57]}...")
