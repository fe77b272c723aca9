"""What the parsers of the subcommands that need neither model nor data have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn


class ArgumentParser(argparse.ArgumentParser):
    """Bad arguments become a ValueError, which the entry point prints as one line."""

    def error(self, message: str) -> NoReturn:
        """Raise the parser's message."""
        raise ValueError(f"{message} ({self.prog} --help explains)")

    def parse(
        self, arguments: Sequence[str], default: Sequence[str] = ("--help",), *, intermixed: bool = False
    ) -> argparse.Namespace:
        """Parse the arguments after the subcommand's name, or ``default`` if there are none.

        ``intermixed``: options may stand between the values of one positional argument.
        """
        rest = list(arguments)
        rest = rest[1:] if rest[:1] == [self.prog.split()[-1]] else rest
        return (self.parse_intermixed_args if intermixed else self.parse_args)(rest or default)


def add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], None], description: str
) -> argparse.ArgumentParser:
    """Add a command of a subcommand, whose options have the function ``run`` that carries it out."""
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=description, description=f"{description}.", allow_abbrev=False
    )
    command.set_defaults(run=run)
    return command


def add_checkpoint_argument(parser: argparse.ArgumentParser) -> None:
    """Add the checkpoint, and code of one's own that it names."""
    parser.add_argument(
        "checkpoint", type=named_path, help="a checkpoint, or the folder of a run (its last.ckpt)"
    )
    parser.add_argument(
        "--code",
        action="append",
        default=[],
        metavar="FILE",
        help="a Python file or folder with classes of your own that the checkpoint names; may be repeated",
    )


def named_path(text: str) -> Path:
    """The type of an argument that is a path; the text of a shell variable that is not set is none."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{text!r} must be a path, not an empty text")
    return Path(text)


def checkpoint_first(arguments: Sequence[str]) -> list[str]:
    """The arguments, with the value of a ``--ckpt_path``, as other subcommands have it, as the checkpoint."""
    rest = list(arguments)
    for place, word in enumerate(rest):
        if word.startswith("--ckpt_path="):
            return [*rest[:1], word.partition("=")[2], *rest[1:place], *rest[place + 1 :]]
        if word == "--ckpt_path" and place + 1 < len(rest):
            return [*rest[:1], rest[place + 1], *rest[1:place], *rest[place + 2 :]]
    return rest


def integer(low: int, high: int | None = None) -> Callable[[str], int]:
    """The type of an argument that is an integer from ``low`` to ``high``, both included."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} must be an integer") from None
        if value < low or (high is not None and value > high):
            limits = f"at least {low}" if high is None else f"from {low} to {high}"
            raise argparse.ArgumentTypeError(f"{value} must be {limits}")
        return value

    return parse
