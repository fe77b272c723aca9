"""The architectures that a study names, one by one or many at once.

=====================================  =======================================================
``darts_v2``, ``enas:C4``, ...         any genotype spec, see :mod:`nas_lightning.cells.spec`
``cells/mine.yaml``                    a genotype file of any kind, relative to the study's file
``{name: mine, genotype: SPEC}``       a genotype under a name of one's own; the spec may be a literal
``darts_v2 and C1..C13``               the cell, then its variants; more may follow with `and`
``{base: enas, variants: [C1..C13]}``  the same as a mapping; a list of ``C1``, ``C1..C4``,
                                       ``connections=1..10``, ``operations=1..5`` or ``adapted``
``darts_v2:wiring=01011002``           a wiring, see ``nas-lightning cells census --vary``
``darts_v2:connections=0..9``          variants alone; also ``operations=1..10``, ``C1..C4``
``all published cells``                also ``all published cells of the 4-node space``
``darts_conn1``                        a variant that the paper's authors published
``figure2 of darts_v2``                the cell and ``darts_conn1`` to ``4``, section 4's C1 to C4
=====================================  =======================================================
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from nas_lightning.cells import Genotype, genotype_slug, get_genotype, published_genotypes
from nas_lightning.cells.literal import is_literal
from nas_lightning.cells.names import full_name
from nas_lightning.cells.operations import nearest
from nas_lightning.cells.published import SECTION4_CELLS, published_variants
from nas_lightning.cells.spec import apply_variant, file_and_variant, published_base, read_genotype
from nas_lightning.cells.table2 import TABLE2
from nas_lightning.study.study import Architecture, VariantKind

Entry: TypeAlias = str | Mapping[str, Any]

_ALL_PUBLISHED = re.compile(r"all published cells(?: of the (\d+)-node space)?")
_FIGURE2 = re.compile(r"figure ?2 of (\S+)")
_RANGE = re.compile(r"(C|connections=|operations=)(\d{1,10})\.\.C?(\d{1,10})")
_MOST = 10_000


def expand_architectures(entries: Sequence[Entry], folder: Path | None = None) -> list[Architecture]:
    """The architectures that a study's entries name, each genotype once.

    Aliases give the full name. A cell that is published, is a variant of table 2 or is an adapted published
    cell goes by that name however it was asked for, so that ``darts_v2:connections=6`` is ``darts_v2:C6``.
    Genotype files are relative to ``folder``.
    """
    if not entries:
        raise ValueError("`architectures` must have at least one entry, such as 'darts_v2 and C1..C13'")
    found: dict[Genotype, Architecture] = {}
    for entry in entries:
        try:
            for architecture in _architectures(entry, folder):
                found.setdefault(architecture.genotype, architecture)
        except (ValueError, OSError) as error:
            shown = repr(entry) if len(repr(entry)) <= 70 else f"{repr(entry)[:67]}..."
            raise type(error)(f"`architectures`, entry {shown}: {error}") from error
    check_labels(found.values())
    return list(found.values())


def check_labels(architectures: Iterable[Architecture]) -> None:
    """Refuse two genotypes of one label; the ValueError names the label and both specs."""
    labels: dict[str, Architecture] = {}
    for architecture in architectures:
        other = labels.setdefault(architecture.label, architecture)
        if other.genotype != architecture.genotype:
            raise ValueError(
                f"`architectures`: {other.spec} and {architecture.spec} differ, but both would be called"
                f" {architecture.label!r}; rename a file, or give names, as in {{name: mine, genotype: SPEC}}"
            )


def figure2_number(architecture: Architecture) -> str | None:
    """What section 4 calls a variant of the DARTS cell; None for all other cells."""
    return next((number for number, name in SECTION4_CELLS.items() if name == architecture.variant), None)


def _architectures(entry: Entry, folder: Path | None) -> list[Architecture]:
    if not isinstance(entry, str) and "genotype" in entry:
        return [_named(entry, folder)]
    written = is_literal(entry) if isinstance(entry, str) else not {"base", "variants"} & set(entry)
    notes = read_genotype(entry).notes if written else ()
    return [_architecture(spec, folder, notes) for spec in _specs(entry)]


def _named(entry: Mapping[str, Any], folder: Path | None) -> Architecture:
    """``{name: mine, genotype: SPEC}``: a genotype under a name of one's own."""
    for key in entry:
        if key not in ("name", "genotype"):
            hint = nearest(str(key), ("name", "genotype")) or "; there are `name` and `genotype`"
            raise ValueError(f"unknown key {key!r}{hint}")
    name, spec = entry.get("name"), entry["genotype"]
    if not isinstance(name, str) or re.fullmatch(r"\w[\w.+-]{0,59}", name) is None:
        raise ValueError(f"`name` (={name!r}) must be a word of letters, digits, '_', '-', '+' and '.'")
    if not isinstance(spec, str | Mapping):
        raise ValueError(f"`genotype` (={spec!r}) must be a genotype spec or a mapping")
    if isinstance(spec, str) and not is_literal(spec):
        spec = _with_absolute_file(spec.strip(), folder)
    genotype, notes = read_genotype(spec)
    published = full_name(name)
    if published is not None and get_genotype(published) != genotype:
        raise ValueError(f"`name` (={name}) is that of the published cell {published}; choose another")
    spec = spec if isinstance(spec, str) and not is_literal(spec) else str(genotype)
    return Architecture(spec, genotype, name, "own", "own", notes)


def _specs(entry: Entry) -> list[str]:
    """The specs of single genotypes that an entry stands for."""
    if not isinstance(entry, str):
        return _of_mapping(entry) if "base" in entry or "variants" in entry else [str(get_genotype(entry))]
    if is_literal(entry):
        return [entry]
    text = " ".join(entry.split())
    published = _ALL_PUBLISHED.fullmatch(text)
    if published is not None:
        return _published(published.group(1))
    figure2 = _FIGURE2.fullmatch(text)
    if figure2 is not None:
        base = "darts_v2"
        if full_name(figure2.group(1)) != base:
            raise ValueError("figure 2 shows darts_v2 and its variants only")
        return [base, *SECTION4_CELLS.values()]
    base, *variants = text.split(" and ")
    if variants:
        return _with_variants(base, variants)
    base, separator, variant = text.rpartition(":")
    return [f"{base}:{one}" for one in _variants(variant)] if separator else [text]


def _of_mapping(entry: Mapping[str, Any]) -> list[str]:
    """The specs of ``{base: NAME, variants: [...]}``: the base and its variants."""
    for key in entry:
        if key not in ("base", "variants"):
            hint = nearest(str(key), ("base", "variants")) or "; there are `base` and `variants`"
            raise ValueError(f"unknown key {key!r}{hint}")
    base, variants = entry.get("base"), entry.get("variants")
    if not isinstance(base, str) or not base.strip():
        raise ValueError(f"`base` (={base!r}) must name a cell, such as darts_v2")
    if not isinstance(variants, list) or not variants or not all(isinstance(one, str) for one in variants):
        raise ValueError(f"`variants` (={variants!r}) must be a list, such as [C1..C13] or [adapted]")
    return _with_variants(base, variants)


def _with_variants(base: str, variants: Iterable[str]) -> list[str]:
    base = base.strip()
    return [base, *(f"{base}:{one}" for many in variants for one in _variants(many.strip()))]


def _variants(text: str) -> list[str]:
    """``C1..C4`` or ``operations=1..10`` one by one; anything else as it is."""
    match = _RANGE.fullmatch(text)
    if match is None:
        return [text]
    kind, first, last = match.group(1), int(match.group(2)), int(match.group(3))
    if not first <= last < first + _MOST:
        raise ValueError(f"the range {text!r} must rise, to at most {_MOST} variants")
    return [f"{kind}{number}" for number in range(first, last + 1)]


def _published(nodes: str | None) -> list[str]:
    if nodes is None:
        return list(published_genotypes())
    # A space has nodes of two edges.
    counts = {
        name: entry.genotype.normal.node_count
        for name, entry in published_genotypes().items()
        if entry.genotype.normal.has_pairs and entry.genotype.reduce.has_pairs
    }
    names = [name for name, count in counts.items() if count == int(nodes)]
    if not names:
        known = ", ".join(str(count) for count in sorted(set(counts.values())))
        raise ValueError(f"no published cell has {nodes} intermediate nodes; there are such of {known}")
    return names


def _architecture(spec: str, folder: Path | None, notes: tuple[str, ...]) -> Architecture:
    """The architecture of a spec; ``notes`` are those on reading the literal that the spec was."""
    spec = str(get_genotype(spec)) if is_literal(spec) else _with_absolute_file(spec, folder)
    genotype, of_file = read_genotype(spec)
    notes += of_file
    spec = _known_genotypes().get(genotype, spec)
    published = published_base(spec)
    if published is not None:
        entry, variant = published
        if entry.variant_of:
            return Architecture(spec, genotype, entry.variant_of, entry.name, entry.kind)
        family = entry.name
    else:
        base, variant = file_and_variant(spec) or (spec, None)
        family = genotype_slug(base)
    if variant is None:
        kind: VariantKind = "own" if published is None else "original"
        return Architecture(spec if published is None else family, genotype, family, kind, kind, notes)
    full = spec if published is None else f"{family}:{variant}"
    if variant == "adapted":
        return Architecture(full, genotype, family, variant, "adapted", notes)
    kind = "operations" if variant.startswith("operations=") else "connections"
    return Architecture(full, genotype, family, variant, kind, notes)


def _with_absolute_file(spec: str, folder: Path | None) -> str:
    found = file_and_variant(spec, folder)
    if found is None:
        return spec
    base, variant = found
    path = str((Path() if folder is None else folder).joinpath(base).resolve())
    return path if variant is None else f"{path}:{variant}"


@cache
def _known_genotypes() -> Mapping[Genotype, str]:
    """Names of the published genotypes and variants, of table 2's variants and of the adapted cells."""
    known: dict[Genotype, str] = {}
    published = {name: entry.genotype for name, entry in published_genotypes().items()}
    variants = {name: [f"C{number}" for number in range(1, len(rows) + 1)] for name, rows in TABLE2.items()}
    for name, genotype in published.items():
        known.setdefault(genotype, name)
    for name, entry in published_variants().items():
        known.setdefault(entry.genotype, name if entry.kind != "adapted" else f"{entry.variant_of}:adapted")
    for name, genotype in published.items():
        for variant in (*variants.get(name, ()), "adapted"):
            known.setdefault(apply_variant(genotype, name, variant), f"{name}:{variant}")
    return known
