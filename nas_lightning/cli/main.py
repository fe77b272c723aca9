"""`nas-lightning`: chooses the subcommand and turns errors of the user's input into one line."""

from __future__ import annotations

import difflib
import gc
import importlib
import os
import sys
from collections.abc import Sequence
from types import ModuleType

from nas_lightning.cli.help import TRAINING, help_text, wants_help
from nas_lightning.cli.launcher import check_launcher
from nas_lightning.cli.messages import is_user_error, one_line, shortened
from nas_lightning.cli.waiting import sleep_while_waiting

SUBCOMMANDS = {
    "fit": ("training", "train a network of cells: nas-lightning fit --config configs/darts.yaml"),
    "validate": ("training", "loss and accuracy of a checkpoint on the split that its training watched"),
    "test": ("training", "loss and accuracy of a checkpoint on the test split"),
    "landscape": ("landscape", "loss contour, lines, path, gradient variance and curvature of a checkpoint"),
    "predict": ("predict", "classes and probabilities of images, or of a split: a table, CSV or JSON"),
    "export": ("export", "a trained network as ONNX, torch.export (.pt2) or safetensors"),
    "plot": ("plot", "draw surfaces side by side: nas-lightning plot FILE..."),
    "theory": ("theory", "the widest and the narrowest linear cell against the theorems of section 4.3"),
    "cells": ("cells", "list, show, draw and count cells and their variants"),
    "audit": ("audit", "is this cell better than a random one? nas-lightning audit darts_v2 -o FOLDER"),
    "study": ("study", "compare architectures: plan, run, commands, status and report of a study file"),
    "completion": ("completion", "a script that completes this command in bash or zsh"),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run a subcommand.

    Bad input ends with one line on standard error, and the error's notes below it, as a list of files; the
    exit code is 2. ``--debug`` (or the environment variable JSONARGPARSE_DEBUG) shows the traceback instead.
    """
    sleep_while_waiting()  # before anything imports torch
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments or bool(os.environ.get("JSONARGPARSE_DEBUG"))
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        _run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("nas-lightning: stopped by Ctrl-C", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader has left, as in `nas-lightning cells list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:
        if debug or not is_user_error(error):
            raise
        print(
            f"nas-lightning: error: {one_line(error)}",
            *getattr(error, "__notes__", ()),
            sep="\n",
            file=sys.stderr,
        )
        sys.exit(2)


def _run(arguments: list[str]) -> None:
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help"):
        print(_overview())
    elif name == "--version":
        from importlib.metadata import version  # slower than everything else that `cells list` imports

        print(version("nas-lightning"))
    elif name in TRAINING and wants_help(arguments):
        print(help_text(name, SUBCOMMANDS[name][1]), flush=True)
        sys.exit(0)
    elif name in SUBCOMMANDS:
        if name in TRAINING:
            arguments = ["--help" if argument == "--help_all" else argument for argument in arguments]
        check_launcher(os.environ)  # before lightning reads it
        _imported(f"nas_lightning.cli.{SUBCOMMANDS[name][0]}").main(arguments)
    else:
        close = difflib.get_close_matches(name.lower(), SUBCOMMANDS, n=1)
        hint = f"; did you mean `{close[0]}`?" if close else f"; there are {', '.join(SUBCOMMANDS)}"
        raise ValueError(f"no subcommand {shortened(name)!r}{hint}")


def _imported(name: str) -> ModuleType:
    """Import a module without garbage collection: libraries make half a million objects and keep them."""
    if name in sys.modules or not gc.isenabled():
        return importlib.import_module(name)
    gc.disable()
    try:
        return importlib.import_module(name)
    finally:
        gc.freeze()
        gc.enable()


def _overview() -> str:
    lines = [
        "usage: nas-lightning SUBCOMMAND ...",
        "",
        "Train, measure and compare the cells of cell-based neural architecture search.",
        "",
        *(f"  {name:<11} {text}" for name, (_, text) in SUBCOMMANDS.items()),
        "",
        "nas-lightning SUBCOMMAND --help lists its options; --debug shows the traceback of an error.",
    ]
    return "\n".join(lines)
