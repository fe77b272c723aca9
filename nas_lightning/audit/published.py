"""Level 0 of every published cell, without initial weights: rows, and the tables that show them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import Any

from tabulate import tabulate

from nas_lightning.audit.standing import Standing
from nas_lightning.audit.structure import (
    QUANTITIES,
    CellStructure,
    NetworkSettings,
    SizeStanding,
    Structure,
    audit_structure,
)
from nas_lightning.audit.verdict import TESTED, Property, Verdict, level_0_verdict
from nas_lightning.cells.census import MAX_WIRINGS
from nas_lightning.cells.published import PublishedGenotype, published_genotypes
from nas_lightning.cells.variants import RANDOM_OPERATIONS
from nas_lightning.report.uncorrected import ALPHA
from nas_lightning.report.words import MISSING, p_value_text

_WORDS = {
    "width": ("narrow", "wide"),
    "depth": ("shallow", "deep"),
    "path": ("short", "long"),
    "parameters": ("few parameters", "many parameters"),
    "multiply_adds": ("few multiply-adds", "many multiply-adds"),
}
_MILLION = 1e6
_WIDTH = 99
_VERDICT = 40


@dataclass(frozen=True)
class PublishedAudit:
    """A published cell at level 0, without its initial weights.

    Attributes:
        cell: The genotype with its citation.
        structure: Its ranks; None stands for each that cannot be had.
        verdict: Of wiring and size.
        not_ranked: Why ranks or p-values are missing, a phrase each; empty if none are.
    """

    cell: PublishedGenotype
    structure: Structure
    verdict: Verdict
    not_ranked: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name in genotype specs."""
        return self.cell.name

    @property
    def oddities(self) -> tuple[str, ...]:
        """Inputs not read, dead nodes and duplicate edges of both cells, a phrase each."""
        return tuple(
            text for cell in (self.structure.normal, self.structure.reduction) for text in _odd(cell)
        )

    @property
    def summary(self) -> str:
        """``"as expected"``, or what stands out; with p-values after Holm's correction for the cell."""
        tested = self.verdict.structure
        if not tested:
            return "nothing to rank"
        out = [found for found in tested if found.stands_out]
        if not out:
            return f"as expected (smallest p {p_value_text(min(f.p_adjusted for f in tested), sign=True)})"
        p = p_value_text(max(found.p_adjusted for found in out), sign=len(out) == 1)
        return f"{'; '.join(_in_short(out))} (p {'up to ' if len(out) > 1 else ''}{p})"

    def record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "name": self.name,
            "method": self.cell.method,
            "year": self.cell.year,
            "structure": self.structure.record(),
            "verdict": self.verdict.record(),
            "summary": self.summary,
            "oddities": list(self.oddities),
            "not_ranked": list(self.not_ranked),
        }


def audit_published(
    settings: NetworkSettings | None = None, names: Iterable[str] | None = None
) -> tuple[PublishedAudit, ...]:
    """Rank wiring and size of published cells, each among all of its own space.

    Args:
        settings: The network that sizes are counted for; the paper's by default.
        names: Which cells; all by default, which takes some seconds.

    Returns:
        A row for every cell, in the order of ``published_genotypes``; one that cannot be ranked says why.

    Raises:
        ValueError: If a setting is out of range.
        KeyError: If a name is none of a published cell.
    """
    published = published_genotypes()
    chosen = published.values() if names is None else [published[name] for name in names]
    return tuple(_audited(cell, settings) for cell in chosen)


def published_table(rows: Sequence[PublishedAudit], *, markdown: bool = False) -> str:
    """One table: where wiring and size of every cell stand, and the verdict.

    On a terminal it is not wider than 100 characters.

    Args:
        rows: As from :func:`audit_published`.
        markdown: Whether as GitHub's Markdown, not for a terminal.
    """
    text = (
        f"{_verdicts_in_words(rows)} Numbers are places: the percentage of all wirings of the cell's edges "
        f"(for size: of choices of {len(RANDOM_OPERATIONS)} operations) below it, and half of its equals. "
        "With an asterisk they are not tested: the cell has an operation that is none of these."
    )
    header = ["cell", "normal: width, depth, path", "reduction", "size: parameters, multiply-adds", "verdict"]
    if not markdown:
        header = ["cell", "normal:\nwidth depth\npath", "reduction", "size", "verdict"]
    body = []
    for row in rows:
        structure = row.structure
        wirings = [cell.standings["ordered"] for cell in (structure.normal, structure.reduction)]
        sizes = (structure.parameters_standing, structure.multiply_adds_standing)
        places = [_places([found[name] for name in QUANTITIES]) for found in wirings]
        size = _places([None if found is None else found.standing for found in sizes])
        if any(found is not None and found.standing.p_value is None for found in sizes):
            size += " *"
        verdict = row.summary if markdown else fill(row.summary, _VERDICT)
        body.append([row.name, *places, size, verdict])
    return f"{fill(text, _WIDTH)}\n\n{_table(header, body, markdown)}"


def _places(standings: Sequence[Standing | None]) -> str:
    return " ".join(MISSING if found is None else f"{100 * found.percentile:.0f}" for found in standings)


def published_tables(
    rows: Sequence[PublishedAudit], initial: Sequence[Mapping[str, Any]] = (), *, markdown: bool = False
) -> str:
    """Tables of the verdicts, both cells' wiring, sizes and remarks, none wider than 100 characters.

    Args:
        rows: As from :func:`audit_published`.
        initial: Initial weights, as from :func:`nas_lightning.audit.run.audit_published_initial`.
        markdown: Whether as GitHub's Markdown, not for a terminal.
    """
    among = "A place in brackets: the share of {} below the cell and half of its equals; p of this alone."
    of_wirings = among.format("wirings of its edges")
    wiring = [f"{name} (place, p)" for name in ("width", "depth", "mean path")]
    remarks = [[row.name, remark] for row in rows for remark in (*row.oddities, *row.not_ranked)]
    remarks += [[entry["name"], entry["problem"]] for entry in initial if entry["problem"]]
    sections = [
        (
            "Verdict",
            _verdicts_in_words(rows),
            ["cell", "wiring and size"],
            [[row.name, row.summary] for row in rows],
        ),
        *(
            (
                f"Wiring of the {name} cell",
                of_wirings,
                ["cell", *wiring],
                [[row.name, *_wiring(getattr(row.structure, name))] for row in rows],
            )
            for name in ("normal", "reduction")
        ),
        (
            "Size, in millions",
            among.format(f"choices of {len(RANDOM_OPERATIONS)} operations"),
            ["cell", "parameters (place, p)", "live parameters", "multiply-adds (place, p)"],
            [[row.name, *_sizes(row.structure)] for row in rows],
        ),
        (
            "Initial weights",
            "The share of matched controls below the cell and half its equals; in brackets p of this alone.",
            ["cell", "controls", *TESTED.values()],
            [[entry["name"], *_initial(entry)] for entry in initial if not entry["problem"]],
        ),
        ("Remarks", "What is odd, and why a place or a p is missing.", ["cell", "remark"], remarks),
    ]
    heading = "### {}\n\n{}\n\n{}" if markdown else "{}\n{}\n\n{}"
    return "\n\n".join(
        heading.format(title, fill(text, _WIDTH), _table(header, body, markdown))
        for title, text, header, body in sections
        if body
    )


def _verdicts_in_words(rows: Sequence[PublishedAudit]) -> str:
    out = sum(not row.verdict.as_expected for row in rows)
    return (
        f"Of {len(rows)} cells {out} {'is' if out == 1 else 'are'} not as expected of a random cell: an "
        f"exact two-sided p is at most {ALPHA:g} after Holm's correction for the properties of the cell. "
        f"Nothing corrects for the number of cells: of {len(rows)} random ones at most "
        f"{ALPHA * len(rows):.2g} would stand out on average."
    )


def _audited(cell: PublishedGenotype, settings: NetworkSettings | None) -> PublishedAudit:
    structure = audit_structure(cell.genotype, settings)
    return PublishedAudit(cell, structure, level_0_verdict(structure), tuple(_not_ranked(cell, structure)))


def _not_ranked(cell: PublishedGenotype, structure: Structure) -> Iterable[str]:
    for one in (structure.normal, structure.reduction):
        if one.wirings > MAX_WIRINGS:
            yield f"{one.name}: {one.wirings:,} wirings are too many to list: no place"
        elif one.standings["ordered"]["path"] is None:
            yield f"{one.name}: no place of the mean path: there is none"
    if structure.multiply_adds_standing is None:
        yield "size: no place: an operation has no formula"
        return
    edges = (*cell.genotype.normal, *cell.genotype.reduce)
    others = sorted({edge.op for edge in edges} - set(RANDOM_OPERATIONS))
    if others:
        named = ", ".join(others) if len(others) < 3 else f"{', '.join(others[:2])} and others"
        yield f"size: no p, not among those operations: {named}"


def _odd(cell: CellStructure) -> Iterable[str]:
    for node in cell.inputs_not_read:
        yield f"{cell.name}: input {node} not read"
    if cell.dead_nodes:
        numbers = ", ".join(map(str, cell.dead_nodes))
        yield f"{cell.name}: node{'s' * (len(cell.dead_nodes) > 1)} {numbers} dead"
    for node, source, op in cell.duplicate_edges:
        yield f"{cell.name}: {op} from {source} to {node} twice"


def _in_short(out: Iterable[Property]) -> Iterable[str]:
    """``"wide, short normal cell"``, ``"many parameters"``, ..."""
    words: dict[str, list[str]] = {}
    for found in out:
        where, _, quantity = found.key.rpartition("/")
        words.setdefault(where, []).append(_WORDS[quantity][found.standing.percentile > 0.5])
    for where, of_cell in words.items():
        yield f"{', '.join(of_cell)}{f' {where} cell' if where else ''}"


def _wiring(cell: CellStructure) -> list[str]:
    forms = ("{:.3g}c", "{:g}", "{:.3g}")
    return [
        _place(form, cell.standings["ordered"][name]) for name, form in zip(QUANTITIES, forms, strict=True)
    ]


def _sizes(structure: Structure) -> list[str]:
    live = structure.live_parameters
    parameters, operations = structure.parameters_standing, structure.multiply_adds_standing
    return [
        _place("{:.2f}", parameters, _MILLION),
        MISSING if live is None else f"{live / _MILLION:.2f}",
        _place("{:.0f}", operations, _MILLION),
    ]


def _initial(entry: Mapping[str, Any]) -> list[str]:
    standings = [entry["initial"]["statistics"][name]["standing"] for name in TESTED]
    places = [f"{found['percentile']:.3f} ({p_value_text(found['p_value'])})" for found in standings]
    return [str(entry["initial_controls"]["count"]), *places]


def _place(form: str, found: Standing | SizeStanding | None, unit: float = 1) -> str:
    if found is None:
        return MISSING
    standing = found.standing if isinstance(found, SizeStanding) else found
    p = MISSING if standing.p_value is None else p_value_text(standing.p_value)
    return f"{form.format(standing.value / unit)} ({standing.percentile:.3f}, {p})"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], markdown: bool) -> str:
    text = tabulate(rows, header, tablefmt="github" if markdown else "simple", disable_numparse=True)
    return "\n".join(line.rstrip() for line in text.splitlines())
