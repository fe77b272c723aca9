"""Errors in one line, in the user's terms: the setting, its value, and the values it may have."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


def is_user_error(error: Exception) -> bool:
    """Whether an error concerns the user's input or files, so that one line says enough."""
    return isinstance(error, ValueError | OSError) or any(
        base.__name__ == "MisconfigurationException" for base in type(error).__mro__
    )


def one_line(error: BaseException) -> str:
    """The message of an error in one line, without the number of an error of the system."""
    own = isinstance(error, OSError) and error.filename is None and error.strerror
    return " ".join(str(own or error).split()) or type(error).__name__


def plain_message(text: str, known: Iterable[str]) -> str:
    """Shorten jsonargparse's message to one line, in the parser's own words where its form is unknown.

    ``known`` are all settings, for a suggestion where one is misspelt.
    """
    text = text.removeprefix('Parser key "config": ')  # precedes every message about a configuration file
    # A message of ours about a nested setting stands among the parser's guesses.
    own_words = re.search(r"^\s*- (`.*)$", text, re.MULTILINE)
    if own_words is None and 'Parser key "trainer.callbacks"' in text:
        own_words = re.search(r"^\s*- (there is no setting .*)$", text, re.MULTILINE)
    if own_words is not None:
        return own_words.group(1)
    unknown = re.search(r"(?:[Uu]nrecognized arguments: --|[Oo]ption '|Key '|NestedArg\(key=')([\w.]+)", text)
    if unknown is not None:
        return _unknown_setting(unknown.group(1), list(known))
    key = re.search(r'Parser key "([\w.]+)"', text)
    name = key.group(1) if key is not None else None
    value = re.search(r"(?:Given|Got) value: (.*)$", text, re.MULTILINE)
    said = f"`{name}`" if value is None else f"`{name}` (={value.group(1)})"
    literals = re.findall(r"typing\.Literal\[(.*?)\]", text)
    if name is not None and literals:
        choices = dict.fromkeys(choice.strip("' ") for group in literals for choice in group.split(","))
        return f"{said} must be one of {', '.join(choices)}"
    path = re.search(r"Expected a dot import path string: (.*)$", text, re.MULTILINE)
    if name is not None and path is not None:
        return f"`{name}` (={path.group(1)}) must be the name or import path of a class"
    class_path = re.search(r"Problem with given class_path '([\w.]+)'", text)
    if name is not None and class_path is not None:
        return f"`{name}` names {class_path.group(1)!r}: there is no such class"
    kind = re.search(r"Expected a <class '([\w.]+)'>", text)
    if name is not None and kind is not None:
        return f"{said} must be of type {kind.group(1).rpartition('.')[2].lower()}"
    return " ".join(text.split())


def _unknown_setting(name: str, known: list[str]) -> str:
    matches = difflib.get_close_matches(name, known, n=1) or [
        candidate
        for last in difflib.get_close_matches(name, [key.rpartition(".")[2] for key in known], n=1)
        for candidate in known
        if candidate.rpartition(".")[2] == last
    ]
    hint = f"did you mean `{matches[0]}`?" if matches else "--help lists all settings"
    return f"there is no setting `{name}`; {hint}"
