"""Errors in one line, in the user's terms: the setting, its value, and the values it may have."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

LONGEST_VALUE = 80
"""Characters of a value that a message quotes."""

# Nested settings that are addressed by their key, `data.cutout`, and what stands for the group.
_CLASS_SETTINGS = {
    "data": "a data set such as CIFAR10",
    "model.optimizer": "an optimiser such as SGD",
    "model.lr_scheduler": "a schedule such as StepLR, or null",
    "trainer.callbacks": "a list of callbacks such as LossContour",
    "trainer.logger": "the name or import path of a logger such as CSVLogger, a list of them, true or false",
}
# What other code for the same training calls settings.
_OTHER_NAMES = {
    "arch": "model.genotype",
    "aux_weight": "model.auxiliary_weight",
    "auxiliary": "model.auxiliary_weight",
    "channels": "model.init_channels",
    "cutout_length": "data.cutout",
    "data_dir": "data.root",
    "data_path": "data.root",
    "dataset": "data",
    "drop_path_prob": "model.drop_path",
    "epochs": "trainer.max_epochs",
    "gpus": "trainer.devices",
    "grad_clip": "trainer.gradient_clip_val",
    "init_ch": "model.init_channels",
    "layers": "model.num_cells",
    "learning_rate": "model.optimizer.lr",
    "model_path": "ckpt_path",
    "resume": "ckpt_path",
    "seed": "seed_everything",
    "wd": "model.optimizer.weight_decay",
}
# Packages that Lightning asks for where a setting has one of these values.
_NEEDED_BY = {
    "torch_xla": ("tpu", "xla"),
    "transformer_engine": ("transformer-engine", "transformer-engine-float16"),
}
_PLAIN_TYPES = ("bool", "int", "float", "str", "list", "dict", "tuple")


def is_user_error(error: Exception) -> bool:
    """Whether an error concerns the user's input or files, so that one line says enough."""
    is_loop = type(error) is RuntimeError and str(error).startswith("Symlink loop")  # of Python up to 3.12
    return (
        isinstance(error, ValueError | OSError)
        or is_loop
        or any(base.__name__ == "MisconfigurationException" for base in type(error).__mro__)
    )


def one_line(error: BaseException) -> str:
    """The message of an error in one line, without the number of an error of the system."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        text = ": ".join([*([" -> ".join(names)] if names else []), error.strerror])
    return " ".join(text.split()) or type(error).__name__


def plain_message(
    text: str, known: Iterable[str], classes: Callable[[], Mapping[str, Sequence[str]]] = dict
) -> str:
    """Shorten jsonargparse's message to one line, in the parser's own words where its form is unknown.

    ``known`` are all settings, and ``classes`` gives the classes that a setting takes, for suggestions where
    one is misspelt; they are asked for only then.
    """
    text = text.removeprefix('Parser key "config": ')  # precedes every message about a configuration file
    missing = re.search(r"class_path '([\w.]+)':\s*(?:Requirement|No module named) '([\w-]+)", text)
    if missing is not None and missing.group(2) != missing.group(1).partition(".")[0]:
        kind, package = missing.group(1).rpartition(".")[2], missing.group(2)
        return f"{kind} needs the package {package}, which is not installed: `pip install {package}`"
    key = re.search(r'Parser key "([\w.]+)"', text)
    name = key.group(1) if key is not None else None
    nested = _nested_message(name, text)
    if nested is not None:
        return nested
    before = r"[Uu]nrecognized arguments: --|ambiguous option: --|[Oo]ption '|Key '|NestedArg\(key='"
    unknown = re.search(rf"(?:{before})([^\s=']+)", text)
    if unknown is not None:
        return unknown_setting(unknown.group(1).removesuffix("+"), known)
    missing = re.search(r"the following arguments are required: ([\w.]+)", text)
    if missing is not None:
        return f"`{missing.group(1)}` is missing"
    no_value = re.match(
        r"argument (?:-\w, |-\w/)?--([\w.]+)\S*: expected (?:one|at least one) argument", text
    )
    if no_value is not None:
        return f"`{no_value.group(1)}` needs a value"
    stray = re.match(r"unrecognized arguments: (\S+)", text)
    if stray is not None:
        return f"there is no argument {shortened(stray.group(1))!r}; settings are given as `--KEY VALUE`"
    guess = re.search(r"^Does not validate against .*?^Errors:\s*- (.*?)$", text, re.DOTALL | re.MULTILINE)
    if guess is not None:
        vague = ("Does not validate", "Expected a ")
        found = [
            said for said in re.findall(r"^\s+- (.*)$", text, re.MULTILINE) if not said.startswith(vague)
        ]
        kinds = re.findall(r"class_path='([\w.]+)'", text)
        of_class = f"{kinds[0].rpartition('.')[2]}: " if found and kinds else ""
        return of_class + shortened((found or [guess.group(1)])[0], 3 * LONGEST_VALUE)
    if name is None:
        return shortened(" ".join(text.split()), 3 * LONGEST_VALUE)
    value = re.search(r"(?:Given|Got) value: (.*)$", text, re.MULTILINE)
    said = f"`{name}`" if value is None else f"`{name}` (={shortened(value.group(1))})"
    file = re.search(r"Unable to load config ['\"](.*?)['\"]", text)
    if file is not None:
        return f"`{name}` (={shortened(file.group(1))}) must be a file with settings of `{name}`"
    return (
        _class_message(name, text, classes)
        or (f"{said} must be {_CLASS_SETTINGS[name]}" if name == "trainer.logger" and value else None)
        or _value_message(said, text)
        or (f"{said} must be {_CLASS_SETTINGS[name]}" if name in _CLASS_SETTINGS and value else None)
        or f"`{name}`: {shortened(' '.join(text.partition(':')[2].split()), 3 * LONGEST_VALUE)}"
    )


def trainer_message(text: str, settings: Mapping[str, Any]) -> str | None:
    """What the trainer says of its machine, with the setting at fault; None if it names none of these."""
    package = re.match(r"Requirement '([\w-]+)[^']*' not met", text)
    lower = text.lower()
    for key in ("devices", "strategy", "precision", "accelerator"):
        value = str(settings.get(key))
        is_needed = package is not None and value.lower() in _NEEDED_BY.get(package.group(1), ())
        if is_needed or (package is None and (key in lower or (key == "accelerator" and "backend" in lower))):
            said = f"`trainer.{key}` (={shortened(value)})"
            if package is None:
                return f"{said}: {shortened(text, 3 * LONGEST_VALUE)}"
            name = package.group(1)
            return f"{said} needs the package {name}, which is not installed: `pip install {name}`"
    return None


def unknown_setting(name: str, known: Iterable[str]) -> str:
    """There is no such setting: which one of the ``known`` ones may be meant."""
    names = list(dict.fromkeys(known))
    matches = _similar(name, names)
    if matches:
        hint = f"did you mean {' or '.join(f'`{match}`' for match in matches)}?"
    elif "trainer" not in names and "config" not in names:  # the arguments of one class
        plain = [known_name for known_name in names if "." not in known_name and known_name != "help"]
        hint = shortened(f"there are {', '.join(plain)}", 2 * LONGEST_VALUE)
    else:
        hint = "--help_all lists all settings"
    return f"there is no setting `{shortened(name)}`; {hint}"


def shortened(text: str, length: int = LONGEST_VALUE) -> str:
    """A text without line breaks, cut after some characters; the parser's word for a mapping left out."""
    text = " ".join(text.replace("Namespace(", "(").split())
    return text if len(text) <= length else f"{text[:length]}..."


def _similar(name: str, known: list[str]) -> list[str]:
    """Up to three settings that may be meant: first those that end with the same word."""
    last = name.rpartition(".")[2]
    if _OTHER_NAMES.get(last) in known:
        return [_OTHER_NAMES[last]]
    ends = {known_name.rpartition(".")[2] for known_name in known}
    close = [last] if last in ends else difflib.get_close_matches(last, sorted(ends), n=1, cutoff=0.75)
    candidates = [setting for setting in known if setting.rpartition(".")[2] in close]
    if not candidates:
        return difflib.get_close_matches(name, known, n=1)
    group = name.partition(".")[0]
    best = min(_distance(setting, group) for setting in candidates)
    return [setting for setting in candidates if _distance(setting, group) == best][:3]


def _distance(setting: str, group: str) -> tuple[bool, int]:
    return setting.partition(".")[0] != group, setting.count(".")


def _nested_message(name: str | None, text: str) -> str | None:
    """A message of ours about an argument of a class, which stands among the parser's guesses."""
    own = re.search(r"^\s*(?:- )?(`.*)$", text, re.MULTILINE)
    if own is None:
        own = re.search(r"^\s*(?:- )?(there is no setting .*)$", text, re.MULTILINE)
    if own is None:
        return None
    message = own.group(1)
    if message.startswith(("there is no setting `class_path`", "there is no setting `init_args`")):
        return f"`{name or 'a class'}` must be {{class_path: CLASS, init_args: {{SETTING: VALUE}}}}"
    if name in (None, "trainer.callbacks"):
        return message
    return re.sub(r"(setting |mean |or |^)`(?!data\.|model\.|trainer\.)([\w.]+)`", rf"\1`{name}.\2`", message)


def _class_message(name: str, text: str, classes: Callable[[], Mapping[str, Sequence[str]]]) -> str | None:
    """What is wrong with the name of a class."""
    path = re.search(
        r"(?:Expected a dot import path string|Unexpected import path format): (.*)$", text, re.M
    )
    plain = re.search(r"Expected a <class '(?:int|float|bool|str)'>", text)
    if path is not None and plain is None:
        given = path.group(1)
        said = f"`{name}` (={shortened(given)}) must be the name or import path of a class"
        names = {known.lower(): known for known in classes().get(name, ())}
        close = difflib.get_close_matches(given.lower(), names, n=1)
        if close:
            return f"{said}; did you mean `{names[close[0]]}`?"
        return f"{said}, such as {', '.join(names.values())}" if 0 < len(names) < 10 else said
    class_path = re.search(r"Problem with given class_path '([^']*)':\s*(.*)$", text, re.MULTILINE)
    if class_path is None:
        class_path = re.search(r"callable class: ()((?:No module named|module ').*?)\. Got value", text)
    if class_path is not None:
        given = class_path.group(1) or re.findall(r"Got value: (.*)$", text, re.MULTILINE)[-1]
        return f"`{name}` names {shortened(given)!r}: {_why_no_class(class_path.group(2))}"
    base = re.search(r"(?:correspond to a subclass of |to be a subclass of <class ')(\w+)", text)
    if base is None:
        base = re.search(r"to be a function that returns <class '(\w+)'>", text)
    if base is not None:
        given = re.findall(r"(?:Given|Got) value: (.*)$", text, re.MULTILINE)[-1]
        inner = re.search(r"class_path='([^']*)'", given)
        given = inner.group(1) if inner is not None else given
        return f"`{name}` (={shortened(given)}) must be a class derived from {base.group(1)}"
    return None


def _why_no_class(reason: str) -> str:
    if "has no attribute 'keys'" in reason:
        return "its `init_args` must be a mapping of settings"
    missing = re.match(r"No module named '([^']*)'", reason)
    if missing is not None:
        return (
            f"there is no module {missing.group(1)!r} here or among the installed ones;"
            " `--code FOLDER` says where modules are"
        )
    attribute = re.match(r"module '([^']*)' has no attribute '([^']*)'", reason)
    if attribute is not None:
        return f"there is no {attribute.group(2)} in {attribute.group(1)}"
    return shortened(reason)


def _value_message(said: str, text: str) -> str | None:
    """Which type or choice a value should be."""
    literals = re.findall(r"typing\.Literal\[(.*?)\]", text)
    if literals:
        choices = dict.fromkeys(choice.strip("' ") for group in literals for choice in group.split(","))
        return f"{said} must be one of {', '.join(choices)}"
    kinds = [kind.rpartition(".")[2].lower() for kind in re.findall(r"Expected a <class '([\w.]+)'>", text)]
    types = [kind for kind in dict.fromkeys(kinds) if kind in _PLAIN_TYPES]
    types += [kind for kind in dict.fromkeys(kinds) if kind in ("sequence", "iterable") and not types]
    if not types:
        return None
    if types[0] in ("sequence", "list", "iterable"):
        value = re.search(r"\(=([\w./-]+)\)$", said)
        return f"{said} must be a list, such as [{value.group(1) if value is not None else '...'}]"
    null = ", or null" if "nonetype" in kinds else ""
    return f"{said} must be of type {' or '.join(types)}{null}"
