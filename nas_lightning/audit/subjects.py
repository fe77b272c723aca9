"""The audited cells: one space for all, and a name each that is fit for a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nas_lightning.cells import Genotype, genotype_slug
from nas_lightning.cells.spec import read_genotype
from nas_lightning.files import shown

FEWEST_NODES = 2
"""A cell of one node has too few wirings to be compared with."""

_LONGEST_SPEC = 80
_LONGEST_NAME = 120
"""In bytes: with a control's wiring and a training's settings behind it, a name stays under 255."""


@dataclass(frozen=True)
class Subject:
    """A cell that is audited.

    Attributes:
        name: What it is called, fit for a file: ``"darts_v2"``, ``"darts_v2-connections7"``.
        spec: The genotype spec as it was given.
        genotype: The cells.
        notes: How the genotype was read, where a user should know.
    """

    name: str
    spec: str
    genotype: Genotype
    notes: tuple[str, ...] = ()


def read_subjects(specs: Sequence[str]) -> tuple[Subject, ...]:
    """Read the audited cells.

    Args:
        specs: Genotype specs.

    Returns:
        The cells, in the order of their specs.

    Raises:
        ValueError: If a spec names nothing or is too long a name for files, a cell has one node, two are the
            same cell or have one name, or they belong to different spaces: their cells have other numbers of
            nodes or of edges of a node.
        OSError: If a file cannot be read.
    """
    subjects: list[Subject] = []
    for spec in specs:
        reading = read_genotype(spec)
        subject = Subject(genotype_slug(spec), spec, reading.genotype, tuple(reading.notes))
        _check_name(subject)
        _check_nodes(subject)
        for other in subjects:
            _check_pair(other, subject)
        subjects.append(subject)
    return tuple(subjects)


def _check_name(subject: Subject) -> None:
    if (length := len(subject.name.encode())) > _LONGEST_NAME:
        raise ValueError(
            f"a cell's name has at most {_LONGEST_NAME} bytes, as files are called by it, and "
            f"{subject.name[:40]}... has {length}: rename the file"
        )


def _check_nodes(subject: Subject) -> None:
    for edges, name in ((subject.genotype.normal, "normal"), (subject.genotype.reduce, "reduction")):
        if edges.node_count < FEWEST_NODES:
            raise ValueError(
                f"{_said(subject)}: the {name} cell has one node, whose wirings are too few to compare "
                f"it with; an audit needs {FEWEST_NODES} nodes"
            )


def _check_pair(first: Subject, second: Subject) -> None:
    names = f"{_said(first)} and {_said(second)}"
    if first.genotype == second.genotype:
        raise ValueError(f"{names} are the same cell")
    if first.name == second.name:
        raise ValueError(f"{names} would both be called {first.name!r}; rename a file")
    for reduction, name in ((False, "normal"), (True, "reduction")):
        counts = [one.genotype.cell(reduction)[0].counts for one in (first, second)]
        if counts[0] != counts[1]:
            shapes = [f"{len(count)} nodes with {_numbers(count)} edges" for count in counts]
            raise ValueError(
                f"{names} belong to different spaces: their {name} cells have {shapes[0]} and {shapes[1]}; "
                "audit them one by one, and set the pages side by side with --compare"
            )


def _numbers(counts: Sequence[int]) -> str:
    return str(counts[0]) if len(set(counts)) == 1 else ", ".join(map(str, counts))


def _said(subject: Subject) -> str:
    """The spec in a message; a literal would fill it."""
    return shown(subject.spec) if len(subject.spec) <= _LONGEST_SPEC else subject.name
