"""Finds genotypes in text: what search codes print, in a program, a log, a note or a data file.

Nothing is evaluated: brackets are matched, and what they hold is read by
:mod:`nas_lightning.cells.python_text`.
"""

from __future__ import annotations

import contextlib
import html
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from nas_lightning.cells.forms import (
    CELLS,
    THIS_NETWORK,
    Reading,
    field_name,
    fields_of_list,
    form_of,
    read_mapping_form,
)
from nas_lightning.cells.genotype import FIELDS, Genotype
from nas_lightning.cells.python_text import MAX_LENGTH, Call, NotAValue, bracketed, read_value, shown
from nas_lightning.yaml_files import PythonTags, parse_yaml

FORM = "Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=[2, 3], reduce=[...], reduce_concat=[2, 3])"

# Not the name of a downloaded copy, `Genotype (1).txt`.
_CALL = re.compile(r"Genotype\s*\((?!\d+\)\.)|(?:genotype|GENOTYPE)\s*\(\s*(?=normal\w*\s*=|\[\s*[\[(])")
_DICT = re.compile(r"\b(?:dict|OrderedDict)\s*\((?=\s*\[?\s*\(?\s*[\"']?(?:normal|reduc))")
_KEY = re.compile(
    r"""["'](?:normal|reduce|reduction|normal_cell|reduce_cell|(?:normal|reduce)_\d{1,4}
    |(?:[^"'\n]{1,60}/)?(?:normal|reduce)/op_\d{1,4}_\d{1,4}|(?:normal|reduce)_n\d{1,4}_(?:p\d{1,4}|switch)
    |[^"'\n]{0,60}edge_(?:normal|reduce)_\d{1,4}
    |recurrent|arch_str|module_adjacency|adjacency_matrix|matrix)["']\s*:""",
    re.VERBOSE,
)
_ASSIGNED = re.compile(r"""((?:[A-Za-z_]\w*\s*(?::[^=\n]{0,80})?=\s*)+)["']?[\w.]*$""")
_QUOTED_KEY = re.compile(r"""["']([^"'\n]{1,80})["']\s*:\s*["']?[\w.]*$""")
_YAML_KEY = re.compile(r"""^\s*(?:-\s+)?([A-Za-z_][\w.-]{0,80})\s*:\s*["']?[\w.]*$""")
_SECOND_NAME = re.compile(r"^([A-Za-z_]\w*)[ \t]*=[ \t]*([A-Za-z_]\w*)[ \t]*(?:#.*)?$", re.MULTILINE)
_COMMENT = re.compile(r"\s*(?:#|//)")
# Where one string of a program ends on a line, and the next goes on with it.
_PIECES = re.compile(r"""(["'])[ \t]*(?:\+[ \t]*)?\\?\r?\n[ \t]*(?:\+[ \t]*)?[rfu]?\1""")
_CELL_LINE = re.compile(
    r"""(?:\b|_)(?P<cell>normal|reduce|reduction)(?:[ _](?:cell|edges|gene))?(?P<concat>_concat)?
    ["']?\s*(?:[:=]\s*(?=\[\s*\[?\s*\(|\[\s*\d|\w*\(?range\(|list\()|=\s*(?=\[\s*\[))""",
    re.VERBOSE | re.IGNORECASE,
)
_NASBENCH201 = re.compile(r"\|[\w-]{1,40}~\d")
_ADJACENCY = re.compile(r"ModelSpec\s*\(|conv3x3-bn-relu|maxpool3x3|module_adjacency")

# Words of names that every search prints: they name no genotype among several.
_COMMON_WORDS = frozenset(
    (
        *("genotype", "genotypes", "geno", "gene", "genes", "arch", "archs", "architecture"),
        *("architectures", "cell", "cells", "model", "config", "cfg", "best", "final", "derived"),
        *("searched", "search", "current", "cur", "new", "result", "results", "discovered", "found"),
        *("str", "string", "value", "valid", "val", "test", "train", "last", "top", "info", "debug"),
        *("warning", "error", "exp", "export", "exported", "json", "dict", "data", "net", "network"),
    )
)
# Edges whose operations are numbers, alone in a text: what they mean is in the program that printed them.
_NUMBERED = re.compile(
    r"""\s*(?:\{?\s*["']?\w{1,40}["']?\s*[:=]\s*)?[\[(]{2,3}\s*(?:[\[(]\s*\d{1,2}\s*,\s*\d{1,2}\s*[\])][\s,]*){2}"""
)
_PROSE = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "`": "'"})
_QUOTES = (
    ('\\"', '"'),
    ("\\'", "'"),
    ("\\\\'", "'"),
    ("''", "'"),
    ("\u2019", "'"),
    ("\u201d", '"'),
    ("\\_", "_"),
    ("`", "'"),
)
# What web pages and PDF files put between words.
_SPACES = str.maketrans(
    dict.fromkeys("\xa0\u2002\u2003\u2009\u202f", " ") | dict.fromkeys("\u200b\u2060\ufeff")
)
_GRADIENT = re.compile(r",\s{0,8}grad_fn=<[^<>\n]{0,80}>")
# How NumPy prints an array of numbers.
_PRINTED_ARRAY = re.compile(r"\[\s*(\d{1,4}(?:\s+\d{1,4})+)\s*\]")
_NUMBERS = (
    "operations are numbers here, as BANANAS, NASLib and NSGA-Net write them; what a number means depends on "
    "the search's list of operations: write names in their place, as in ('sep_conv_3x3', 0)"
)
_TEXT = "the text"
_LONGEST_NAME_PREFIX = 300
_MOST_FOUND = 20_000
_MAX_YAML = 2**20
_MAX_PROGRAM = 2**18


@dataclass(frozen=True)
class Found:
    """A genotype in a text.

    Attributes:
        name: The variable or key that it stands under; empty where that says no more than ``genotype``.
        line: Its line in the text, from 1.
        value: A ``Genotype(...)`` call or a mapping of one of the forms; None where it cannot be read.
        fault: Why it cannot be read; empty if it can.
    """

    name: str
    line: int
    value: Call | Mapping[str, Any] | None
    fault: str = ""

    def read(self) -> Reading:
        """Its cells, and remarks on how they were read."""
        match self.value:
            case Call():
                return read_call(self.value)
            case None:
                raise ValueError(self.fault)
            case mapping:
                return read_mapping_form(mapping)


class _Written(NamedTuple):
    """A genotype, and how it stands in a text.

    Attributes:
        found: The genotype.
        in_comment: Whether it stands in a comment.
        is_program: Whether only a running program could read it.
    """

    found: Found
    in_comment: bool
    is_program: bool


def is_literal(text: str) -> bool:
    """Whether a spec is a text that holds a genotype, rather than a name or a file."""
    return (
        _CALL.search(text) is not None
        or "\n" in text.strip()
        or text.lstrip()[:1] in ("{", "[", "(", "|")
        or _DICT.search(text) is not None
        or _KEY.search(text) is not None
        or _ADJACENCY.search(text) is not None
        or _NASBENCH201.search(text) is not None
        or _NUMBERED.match(text) is not None
    )


def parse_genotype(text: str) -> Genotype:
    """Read the genotype in a text, such as the literal that search codes print.

    Args:
        text: ``Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=range(2, 6), reduce=...,
            reduce_concat=...)`` or a mapping of any form of :mod:`nas_lightning.cells.forms`, with anything
            before and after it: a name, a time stamp, comments. The edges may stand in any of the ways of
            :mod:`nas_lightning.cells.edge_lists`.

    Returns:
        The genotype, the last one if the text has several under one name.

    Raises:
        ValueError: If the text has none, has several names, or the genotype is not valid.
    """
    return read_text(text).genotype


def read_text(text: str) -> Reading:
    """Read the genotype in a text, with remarks on how it was read; otherwise as :func:`parse_genotype`."""
    found = find_genotypes(text)
    if not found:
        raise ValueError(f"{shown(text)} is no genotype literal; expected {FORM}")
    return choose(found, "", _TEXT).read()


def choose(found: Sequence[Found], which: str, where: str) -> Found:
    """One genotype of several.

    Args:
        found: All genotypes of a text, in their order.
        which: A name, or a number from 1; empty for the only one, or for the last of one name.
        where: Name of the text for messages.

    Raises:
        ValueError: If there is none of that name or number, or none is chosen of several names.
    """
    names = list(dict.fromkeys(one.name for one in found))
    if which:
        named = [one for one in found if one.name == which] or [
            one for one in found if one.name.lower() == which.lower()
        ]
        if named:
            return named[-1]
        if which.isdecimal() and len(which) < 9 and 1 <= int(which) <= len(found):
            return found[int(which) - 1]
        raise ValueError(f"{where} has no genotype {which!r}; it has {_told(found)}")
    readable = [one for one in found if one.value is not None]
    same = bool(readable) and all(one.value == readable[0].value for one in readable)
    if len(names) > 1 and not same:
        example = next(name for name in names if name)
        remedy = f"choose one, such as {where}#{example}"
        if where == _TEXT:
            remedy = f"give one alone, or put the text into a file and choose one, such as FILE#{example}"
        raise ValueError(f"{where} has several genotypes: {_told(found)}; {remedy}")
    return readable[-1] if same else found[-1]


def _told(found: Sequence[Found]) -> str:
    """The names and numbers of genotypes, for a message of one line."""
    names = list(dict.fromkeys(one.name for one in found if one.name))
    told = ", ".join([*names[:12], *([f"{len(names) - 12} more names"] if len(names) > 12 else [])])
    if len(names) == len(found):
        return told
    numbers = "#1" if len(found) == 1 else f"#1 to #{len(found)}"
    return f"{numbers}, {told}" if names else numbers


def find_genotypes(text: str) -> list[Found]:
    """All genotypes of a text, in their order.

    A text of calls ``Genotype(...)`` is searched for these alone; otherwise for mappings, and read as YAML
    where there are none. What stands in comments counts only where nothing else does, and so does what only a
    running program could read, such as ``Genotype(normal=normal)``.
    """
    if not text.isascii():
        text = text.translate(_SPACES)
    text = _GRADIENT.sub("", text)
    found = _scan(text) or _cell_lines(text)
    if not any(one.value is not None for one in found) and may_be_yaml(text):
        with contextlib.suppress(ValueError):
            found = find_in_data(parse_yaml(text, "the text", PythonTags)) or found
    if not found and text.lstrip()[:1] in ("[", "("):
        with contextlib.suppress(ValueError):
            found = find_in_data(read_value(text))
    if not found:
        if _NASBENCH201.search(text):
            return [Found("", 1, None, f"this is a NAS-Bench-201 cell; {THIS_NETWORK}")]
        if _ADJACENCY.search(text):
            return [Found("", 1, None, f"this is a NAS-Bench-101 cell; {THIS_NETWORK}")]
        if _NUMBERED.match(text):
            return [Found("", 1, None, _NUMBERS)]
    return found


def may_be_yaml(text: str) -> bool:
    """Whether a text may be read as YAML: merge keys, ``<<``, could make it grow beyond all limits."""
    return len(text) <= _MAX_YAML and "<<" not in text


def _scan(text: str) -> list[Found]:
    """The genotypes of a text in calls and braces."""
    found: list[_Written] = []
    places = _Places(text)
    line, at = 1, 0
    for start, body, prefix in places.calls():
        line, at = line + text.count("\n", at, start), start
        found.append(_found(text, start, line, prefix, "Genotype", body))
    if not any(one.found.value is not None for one in found):
        line, at = 1, 0
        for start, body, prefix in places.mappings():
            line, at = line + text.count("\n", at, start), start
            entry = _found(text, start, line, prefix, "", body)
            if body is not None and (entry.found.value is None or _is_form(entry.found.value)):
                found.append(entry)
        found.sort(key=lambda entry: entry.found.line)
    values = [one for one in found if not one.is_program] or found
    kept = [one for one in values if not one.in_comment and not one.is_program] or values
    return _with_other_names(text, [one.found for one in kept])


def _cell_lines(text: str) -> list[Found]:
    """The genotypes of a text that has ``normal = [...]`` and the other three lists on their own."""
    cells: list[tuple[int, dict[str, Any]]] = []
    for match in _CELL_LINE.finditer(text):
        opening = min(at for bracket in "[(" if (at := text.find(bracket, match.end())) >= 0)
        body = bracketed(text, opening)
        key = ("normal" if match["cell"].lower() == "normal" else "reduce") + (match["concat"] or "").lower()
        with contextlib.suppress(ValueError):
            value = read_value(text[match.end() : opening] + (body or ""))
            if not cells or key in cells[-1][1]:
                cells.append((match.start(), {}))
            cells[-1][1][key] = value
        if len(cells) >= _MOST_FOUND:
            break
    return [
        Found("", text.count("\n", 0, start) + 1, fields)
        for start, fields in cells
        if "normal" in fields and "reduce" in fields
    ]


def _with_other_names(text: str, found: list[Found]) -> list[Found]:
    """The genotypes of a program, those that it gives a second name, ``DARTS = DARTS_V2``, under both."""
    by_name = {one.name: one for one in found if one.name}
    if by_name and len(text) <= _MAX_PROGRAM:
        for match in _SECOND_NAME.finditer(text):
            name, first = match.groups()
            if first in by_name and name not in by_name and _own_name(name):
                line = text.count("\n", 0, match.start()) + 1
                by_name[name] = replace(by_name[first], name=name, line=line)
                found.append(by_name[name])
    return sorted(found, key=lambda one: one.line)


def _is_form(value: Any) -> bool:
    """Whether a mapping is a genotype rather than one that has a key of that name."""
    return isinstance(value, Mapping) and (
        form_of(value) not in (None, "genotype")
        or any(isinstance(own, list | Mapping) for key, own in value.items() if field_name(str(key)) in CELLS)
    )


def find_in_data(data: Any) -> list[Found]:
    """All genotypes in nested lists and mappings, as YAML and JSON hold them; their names are their keys."""
    found: list[Found] = []
    seen: set[int] = set()

    def search(value: Any, name: str, depth: int) -> None:
        if depth > 40 or len(seen) > 100_000 or len(found) >= _MOST_FOUND:
            return
        if isinstance(value, str):
            if _CALL.search(value[:MAX_LENGTH]):
                found.extend(Found(one.name or name, 1, one.value, one.fault) for one in _scan(value))
            return
        if not isinstance(value, Mapping | list) or id(value) in seen:
            return
        seen.add(id(value))
        if isinstance(value, Mapping):
            if _is_form(value):
                found.append(Found(name, 1, {str(key): item for key, item in value.items()}))
                return
            for key, item in value.items():
                search(item, _own_name(str(key)) or name, depth + 1)
        elif (fields := fields_of_list(value)) is not None:
            found.append(Found(name, 1, fields))
        else:
            for item in value:
                search(item, name, depth + 1)

    search(data, "", 0)
    return found


class _Places:
    """Where a text has calls and mappings, with a limit on what is read of unfinished ones."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._left = 4 * len(text) + 20 * MAX_LENGTH
        self._count = 0

    def calls(self) -> Iterator[tuple[int, str | None, str]]:
        """The start of each call, its brackets with their content, and what stands before it on its line.

        The content is None where the brackets do not close.
        """
        end = 0
        for match in _CALL.finditer(self.text):
            if match.start() < end or not self._may_go_on():
                continue
            opening = self.text.index("(", match.start())
            body = self._bracketed(opening)
            end = opening + len(body or "")
            yield match.start(), body, self._before(match.start())

    def mappings(self) -> Iterator[tuple[int, str | None, str]]:
        """The same for mappings in braces and ``dict(...)``."""
        end = 0
        for match in sorted([*_KEY.finditer(self.text), *_DICT.finditer(self.text)], key=re.Match.start):
            if match.start() < end or not self._may_go_on():
                continue
            if match.group().endswith("("):
                start, opening = match.start(), match.end() - 1
                body = self._bracketed(opening)
                if body is not None:
                    body = f"dict{body}"
            else:
                opening, body = self._braces_around(match.start(), max(end, match.start() - MAX_LENGTH))
                start = opening
            if body is not None:
                end = opening + len(body)
                yield start, body, self._before(start)

    def _braces_around(self, position: int, first: int) -> tuple[int, str | None]:
        """Where the braces around a position open, and all that they hold."""
        opening = position
        for _ in range(20):
            opening = self.text.rfind("{", first, opening)
            if opening < 0:
                break
            body = self._bracketed(opening)
            if body is not None and opening + len(body) > position:
                return opening, body
        return position, None

    def _bracketed(self, opening: int) -> str | None:
        body = bracketed(self.text, opening)
        self._left -= MAX_LENGTH if body is None else len(body)
        return body

    def _may_go_on(self) -> bool:
        self._count += 1
        return self._left > 0 and self._count <= _MOST_FOUND

    def _before(self, start: int) -> str:
        """What stands before a position on its line."""
        first = max(self.text.rfind("\n", 0, start) + 1, start - _LONGEST_NAME_PREFIX)
        return self.text[first:start]


def _found(text: str, start: int, line: int, prefix: str, call: str, body: str | None) -> _Written:
    """Read the genotype in brackets that open at `start`."""
    name = _name(prefix)
    commented = _COMMENT.match(prefix) is not None
    value: Any = None
    fault, code = "", False
    for source in _spellings(text, start, call, body):
        try:
            value = read_value(f"{call}{source}")
        except NotAValue as error:
            fault, code = fault or f"genotype literal: {error}", True
        except ValueError as error:
            fault = fault or f"genotype literal: {error}"
        else:
            return _Written(Found(name, line, value), commented, False)
    unfinished = f"{shown(text[start : start + 100])} is no genotype literal (a bracket is not closed)"
    fault = fault or f"{unfinished}; expected {FORM}"
    return _Written(Found(name, line, None, fault), commented, code)


def _spellings(text: str, start: int, call: str, body: str | None) -> Iterator[str]:
    r"""The text in brackets, and the same without the quotes of JSON (``\"``), YAML (``''``) and prose.

    The others are those of LaTeX, of web pages, of a program that writes several strings, a line each, of
    NumPy's arrays, and of a terminal that breaks lines within a word.
    """
    if body is not None:
        yield body
    opening = text.find("(" if call else "{", start)
    rest = text[opening : opening + MAX_LENGTH]
    if not call:
        return
    others = [rest.translate(_PROSE).replace(quoted, plain) for quoted, plain in _QUOTES if quoted in rest]
    others += [html.unescape(rest)] if "&" in rest else []
    others += [
        _PIECES.sub("", rest),
        _PRINTED_ARRAY.sub(lambda found: f"[{', '.join(found[1].split())}]", rest),
    ]
    one_line = re.sub(r"[\r\n]", "", rest)
    others += [one_line] if "Genotype" not in one_line else []
    for other in dict.fromkeys(others):
        spelt = bracketed(other, 0) if other != rest else None
        if spelt is not None:
            yield spelt


def _name(prefix: str) -> str:
    """The variable or key at the end of a line's start; empty where it is one that every search prints."""
    assigned = _ASSIGNED.search(prefix)
    if assigned is not None:
        names = [part.partition(":")[0].strip() for part in assigned.group(1).split("=")]
        return next((own for name in names if (own := _own_name(name))), "")
    key = _QUOTED_KEY.search(prefix) or _YAML_KEY.search(prefix)
    return _own_name(key.group(1)) if key is not None else ""


def _own_name(name: str) -> str:
    words = re.findall(r"[a-z]+", name.lower())
    return "" if set(words) <= _COMMON_WORDS else name


def read_call(call: Call) -> Reading:
    """The cells of ``Genotype(...)`` with arguments by keyword or by position.

    A ValueError if an argument is given twice, there are too many, or the cells are not valid.
    """
    if len(call.positional) > len(FIELDS):
        raise ValueError(f"genotype literal: {len(call.positional)} arguments; it takes {', '.join(FIELDS)}")
    arguments = dict(zip(FIELDS, call.positional, strict=False))
    for name, value in call.keywords.items():
        if name in arguments:
            raise ValueError(f"genotype literal: argument {name!r} is given twice")
        arguments[name] = value
    return read_mapping_form(arguments, "genotype literal", "argument")
