"""Reads the genotype literal that search codes print, without evaluating anything."""

from __future__ import annotations

import ast
import re
from typing import Any

from nas_lightning.cells.genotype import FIELDS, Genotype

_START = re.compile(r"\s*([A-Za-z_]\w*\s*=\s*)?Genotype\s*\(")
# A genotype of 20 nodes has about 2,000 characters; far longer texts do not reach the parser.
_MAX_LENGTH = 100_000
_MAX_RANGE = 1000
_FORM = (
    "Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=[2, 3], reduce=[...], reduce_concat=[2, 3])"
)


def is_literal(text: str) -> bool:
    """Whether a text starts as a genotype literal does, with or without ``NAME =`` before it."""
    return _START.match(text) is not None


def parse_genotype(text: str) -> Genotype:
    """Read a genotype literal.

    The text is parsed into a syntax tree of which only the call ``Genotype(...)``, lists, tuples, strings,
    integers and ``range(start, stop)`` are read; nothing is ever evaluated.

    Args:
        text: ``Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=range(2, 6), reduce=...,
            reduce_concat=...)``; arguments by keyword or by position, white space and line breaks at will,
            ``NAME =`` before it allowed. The edges may be grouped by node, in any number:
            ``[[('sep_conv_3x3', 0), ('skip_connect', 1)], [], ...]``.

    Returns:
        The genotype.

    Raises:
        ValueError: If the text is anything else, or the genotype is not valid.
    """
    if len(text) > _MAX_LENGTH:
        raise ValueError(f"a genotype literal of {len(text)} characters is too long (limit {_MAX_LENGTH})")
    try:
        statements = ast.parse(text.strip()).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else str(error) or type(error).__name__
        raise ValueError(f"{shown(text)} is no genotype literal ({reason}); expected {_FORM}") from None
    match statements:
        case [
            ast.Expr(ast.Call(ast.Name("Genotype")) as call)
            | ast.Assign([ast.Name()], ast.Call(ast.Name("Genotype")) as call)
        ]:
            return Genotype.from_mapping(_arguments(call), "genotype literal", "argument")
    raise ValueError(f"{shown(text)} is no genotype literal; expected {_FORM}")


def _arguments(call: ast.Call) -> dict[str, Any]:
    if len(call.args) > len(FIELDS):
        raise ValueError(f"genotype literal: {len(call.args)} arguments; it takes {', '.join(FIELDS)}")
    arguments = dict(zip(FIELDS, (_value(node) for node in call.args), strict=False))
    for argument in call.keywords:
        name = argument.arg or "**"
        if name in arguments:
            raise ValueError(f"genotype literal: argument {name!r} is given twice")
        arguments[name] = _value(argument.value)
    return arguments


def _value(node: ast.expr) -> Any:
    match node:
        case ast.List(elements) | ast.Tuple(elements):
            return [_value(element) for element in elements]
        case ast.Constant(value) if type(value) in (str, int):
            return value
        case ast.UnaryOp(ast.USub(), ast.Constant(int(value))) if type(value) is int:
            return -value
        case ast.Call(ast.Name("range"), [_] | [_, _] as arguments, []):
            bounds = [_value(argument) for argument in arguments]
            if all(type(bound) is int for bound in bounds):
                numbers = range(*bounds)
                # `len` of an enormous range overflows; its bounds do not.
                if numbers.stop - numbers.start > _MAX_RANGE:
                    raise ValueError(f"genotype literal: range({bounds[0]}, ...) names too many nodes")
                return list(numbers)
    raise ValueError(
        f"genotype literal: {_source(node)} is not allowed; only lists, tuples, operation names, node "
        "numbers and range(start, stop) are"
    )


def _source(node: ast.expr) -> str:
    try:
        return shown(ast.unparse(node))
    except RecursionError:
        return "a deeply nested expression"


def shown(text: str) -> str:
    """The start of a text in one line, for messages."""
    line = " ".join(text.split())
    return repr(line if len(line) <= 60 else f"{line[:57]}...")
