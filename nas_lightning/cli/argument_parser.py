"""The parser of the subcommands that need neither model nor data."""

from __future__ import annotations

import argparse
from typing import NoReturn


class ArgumentParser(argparse.ArgumentParser):
    """Bad arguments become a ValueError, which the entry point prints as one line."""

    def error(self, message: str) -> NoReturn:
        """Raise the parser's message."""
        raise ValueError(f"{message} ({self.prog} --help explains)")
