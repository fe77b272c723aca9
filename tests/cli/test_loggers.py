"""Loggers on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.commands import nas_lightning_error


