"""`nas-lightning completion`: a script with which bash or zsh completes subcommands, settings and values."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NoReturn, get_args, get_origin

from nas_lightning.cli.argument_parser import ArgumentParser
from nas_lightning.cli.help import TRAINING
from nas_lightning.cli.main import SUBCOMMANDS

_FILES = ("config", "ckpt_path", "reference_weights", "weights", "code", "output", "checkpoint", "images")
_FOLDERS = ("trainer.default_root_dir", "data.root")


def main(arguments: Sequence[str]) -> None:
    """Print the script for a shell, which stands after ``completion``."""
    options = argument_parser().parse(arguments)
    import shtab

    print(shtab.complete(all_commands(), shell=options.shell))


def argument_parser() -> ArgumentParser:
    """The options of ``nas-lightning completion``."""
    parser = ArgumentParser(
        prog="nas-lightning completion",
        description="A script that completes nas-lightning in a shell: subcommands, settings, values, cells.",
        epilog="nas-lightning completion bash > ~/.local/share/bash-completion/completions/nas-lightning;"
        " for zsh, > _nas-lightning in a folder of $fpath",
    )
    parser.add_argument("shell", choices=("bash", "zsh"), help="for which shell")
    return parser


def all_commands() -> argparse.ArgumentParser:
    """All subcommands with their options, for completion only: it parses nothing."""
    parser = argparse.ArgumentParser(prog="nas-lightning")
    parser.add_argument("--version", action="store_true", help="the version")
    commands = parser.add_subparsers()
    for name, (module, description) in SUBCOMMANDS.items():
        if name in TRAINING:
            _add_settings(commands.add_parser(name, help=description), name)
        else:
            made = importlib.import_module(f"nas_lightning.cli.{module}")
            found = made.argument_parser()
            _complete_files(found)
            commands.choices[name] = found
            commands._choices_actions.append(commands._ChoicesPseudoAction(name, (), description))
    return parser


def _add_settings(command: argparse.ArgumentParser, subcommand: str) -> None:
    """Add the settings of a training, as the real parser and the classes that settings name have them."""
    from nas_lightning.cells import published_genotypes
    from nas_lightning.cli.setting_names import class_names, nested_settings

    classes = class_names()
    command.add_argument("--help_all", action="store_true", help="list all settings")
    for key, hint, text in real_settings(subcommand):
        choices = (
            {"model.genotype": tuple(published_genotypes())}.get(key) or classes.get(key) or _choices(hint)
        )
        action = command.add_argument(f"--{key}", help=_plain(text), choices=choices or None)
        _complete_file(action)
    command.add_argument("--trainer.callbacks+", choices=classes["trainer.callbacks"], help="add a callback")
    for key in nested_settings():
        _complete_file(command.add_argument(f"--{key}"))


def real_settings(subcommand: str) -> Iterator[tuple[str, Any, str]]:
    """Key, type and help of the settings of a subcommand's parser."""
    from nas_lightning.cli.landscape import LandscapeCLI
    from nas_lightning.cli.training import TrainingCLI

    parent = LandscapeCLI if subcommand == "landscape" else TrainingCLI

    class Unused(parent):  # type: ignore[misc, valid-type]
        def parse_arguments(self, parser: Any, args: Any) -> NoReturn:
            raise _Made(self._parser(subcommand))

    try:
        Unused([subcommand])
    except _Made as made:
        for action in made.args[0]._actions:
            option = next((o for o in action.option_strings if o.startswith("--")), None)
            is_hidden = action.help == argparse.SUPPRESS
            if not is_hidden and option not in (None, "--help") and not option.endswith((".help", "+")):
                yield option.removeprefix("--"), getattr(action, "_typehint", None), str(action.help or "")


class _Made(Exception):
    """A parser is made, and nothing is to be parsed."""


def _choices(hint: Any) -> tuple[str, ...]:
    """The values that a type allows, if they can be listed."""
    kinds = get_args(hint) if get_origin(hint) is not Literal else (hint,)
    values = [value for kind in kinds if get_origin(kind) is Literal for value in get_args(kind)]
    if hint is bool or (bool in kinds and not values):
        values = ["true", "false"]
    return tuple(dict.fromkeys(str(value) for value in values))


def _plain(text: str) -> str:
    """The first sentence of a help, without what argparse would fill in."""
    first = text.split(". ")[0].split("\n")[0]
    return " ".join(first.replace("%", "%%").split()).replace("`", "'")


def _complete_files(parser: argparse.ArgumentParser) -> None:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _complete_files(command)
        else:
            _complete_file(action)


def _complete_file(action: argparse.Action) -> None:
    import shtab

    if action.choices:
        return
    if action.dest in _FILES or action.metavar in ("FILE", "STUDY"):
        action.complete = shtab.FILE  # type: ignore[attr-defined]
    elif action.dest in _FOLDERS or action.metavar in ("FOLDER", "DIR"):
        action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
