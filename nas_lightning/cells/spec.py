"""Genotype specs: one string, file or mapping that names a genotype.

================================  ============================================================
``darts_v2``                      a published genotype, or an alias (``darts``, ``snas``)
``darts_conn1``                   a variant that the paper's authors published
``cells/mine.yaml``               a YAML file: the four lists as a mapping, or the literal
``Genotype(normal=[...], ...)``   the literal that search codes print
``BASE:connections=7``            random connections with seed 7; ``BASE`` is a name or a file
``BASE:operations=3``             random operations with seed 3
``BASE:wiring=01011002``          these connections: the source of each edge of the normal cell, a digit
                                  each; ``01011002/01010202`` rewires the reduction cell too
``BASE:adapted``                  widest and shallowest; the authors' wiring where it is public
``NAME:C4``                       variant C4 of table 2 (darts_v2, enas, amoebanet, nasnet)
================================  ============================================================
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from nas_lightning.cells.genotype import FIELDS, Genotype
from nas_lightning.cells.literal import is_literal, parse_genotype, shown
from nas_lightning.cells.operations import nearest
from nas_lightning.cells.published import (
    ALIASES,
    PublishedGenotype,
    find_published,
    published_genotypes,
    published_variants,
)
from nas_lightning.cells.table2 import TABLE2, is_stand_in
from nas_lightning.cells.variants import (
    adapted,
    random_connections,
    random_operations,
    rewired,
    table2_variant,
    widest_shallowest,
)
from nas_lightning.yaml_files import read_yaml

GenotypeSpec: TypeAlias = str | Mapping[str, Any] | os.PathLike[str] | Genotype

VARIANTS = "connections=SEED, operations=SEED, wiring=DIGITS, adapted or C1 to C13"
_FILE_SUFFIXES = (".yaml", ".yml")


def get_genotype(spec: GenotypeSpec) -> Genotype:
    """Find the genotype that a spec names.

    Args:
        spec: A string as in the table above, the path of a YAML file, a mapping with the keys ``normal``,
            ``normal_concat``, ``reduce`` and ``reduce_concat``, or a genotype (returned as it is).

    Returns:
        The genotype.

    Raises:
        ValueError: If the spec has no such form, names nothing known (the nearest name is suggested), or the
            genotype is not valid.
        FileNotFoundError: If the file does not exist.
        OSError: If the file cannot be read.

    Example:
        >>> get_genotype("darts:adapted").normal_concat
        (2, 3, 4, 5)
    """
    if isinstance(spec, Genotype):
        return spec
    if isinstance(spec, Mapping):
        return Genotype.from_mapping(spec)
    if not isinstance(spec, str | os.PathLike):
        raise ValueError(f"a genotype must be a name, a file, a literal or a mapping, not {spec!r}")
    text = os.fspath(spec).strip()
    if is_literal(text):
        return parse_genotype(text)
    base, variant = _split(text)
    genotype = _base_genotype(base)
    if variant is None:
        return genotype
    entry = find_published(base)
    if entry is not None and entry.variant_of:
        raise ValueError(
            f"genotype {shown(text)}: {base} is a variant of {entry.variant_of} already; vary that one"
        )
    try:
        return apply_variant(genotype, ALIASES.get(base, base), variant)
    except ValueError as error:
        raise ValueError(f"genotype {shown(text)}: {error}") from None


def genotype_slug(spec: GenotypeSpec) -> str:
    """A short name for a spec, fit for folder and file names.

    Args:
        spec: A genotype spec; it is not resolved, so a file need not exist.

    Returns:
        For example ``"darts_v2-connections7"``, ``"enas-C4"``, the stem of a file, or ``"genotype-<8
        hexadecimal digits>"`` (of the SHA-256 of the literal) for literals, mappings and genotypes. Aliases
        give the full name.

    Raises:
        ValueError: If a literal or mapping is not valid.
    """
    if isinstance(spec, Genotype | Mapping) or (not isinstance(spec, os.PathLike) and is_literal(spec)):
        digest = hashlib.sha256(str(get_genotype(spec)).encode()).hexdigest()
        return f"genotype-{digest[:8]}"
    base, variant = _split(os.fspath(spec).strip())
    name = Path(base).stem if _is_file(base) else ALIASES.get(base, base)
    parts = [name] if variant is None else [name, variant.replace("=", "")]
    return "-".join(re.sub(r"[^\w.]+", "_", part) for part in parts)


def apply_variant(genotype: Genotype, name: str, variant: str) -> Genotype:
    """Make the variant that the last part of a spec names.

    ``name`` is that of the base: table 2 and the authors' adapted cells go by it.

    Raises:
        ValueError: If there is no such variant.
    """
    key, has_value, value = variant.partition("=")
    if key in ("connections", "operations") and has_value:
        if re.fullmatch(r"[0-9]{1,10}", value) is None:
            raise ValueError(f"the seed {value!r} must be an integer from 0 to 2**32 - 1")
        build = random_connections if key == "connections" else random_operations
        return build(genotype, int(value))
    if key == "wiring" and has_value:
        normal, _, reduce = value.partition("/")
        return rewired(genotype, normal, reduce or None)
    if variant == "adapted":
        return adapted(name) or widest_shallowest(genotype)
    if re.fullmatch(r"C[0-9]{1,3}", variant):
        return table2_variant(name, int(variant[1:]))
    hint = nearest(key, ("connections", "operations", "wiring", "adapted"))
    raise ValueError(f"unknown variant {variant!r}; it must be {VARIANTS}{hint}")


def origin(name: str, variant: str | None) -> str:
    """Who chose a variant's connections; empty where its spec says it all.

    Args:
        name: Name of the base cell.
        variant: The variant; those of table 2 may be stand-ins, and adapted cells ours.
    """
    if variant == "adapted":
        if adapted(name) is not None:
            return "the authors'"
        return "ours; the authors' are not public" if name == "darts_v2" else "ours"
    if name in TABLE2 and variant is not None and re.fullmatch(r"C[0-9]{1,3}", variant):
        seed = TABLE2[name][int(variant[1:]) - 1].seed
        return f"stand-in, seed {seed}" if is_stand_in(name, variant) else f"the authors' seed {seed}"
    return ""


def published_base(spec: GenotypeSpec) -> tuple[PublishedGenotype, str | None] | None:
    """The published genotype that a spec starts from, with the variant asked for; None if there is none.

    The variant is None where the spec names the genotype itself.
    """
    if not isinstance(spec, str) or is_literal(spec):
        return None
    base, variant = _split(spec.strip())
    entry = find_published(base)
    return None if entry is None else (entry, variant)


def _split(text: str) -> tuple[str, str | None]:
    if _is_file(text) or ":" not in text:
        return text, None
    base, _, variant = text.rpartition(":")
    if not _is_file(base) and ":" in base:
        raise ValueError(f"genotype {shown(text)} has more than one ':'; it takes one variant, {VARIANTS}")
    return base.strip(), re.sub(r"\s+", "", variant)


def _is_file(base: str) -> bool:
    return base.lower().endswith(_FILE_SUFFIXES)


def _base_genotype(base: str) -> Genotype:
    if _is_file(base):
        return _from_file(Path(base))
    entry = find_published(base)
    if entry is None:
        known = [*published_genotypes(), *published_variants(), *ALIASES]
        hint = nearest(base, known) or "; `nas-lightning cells list` shows the published ones"
        if os.sep in base:
            hint = "; a genotype file's name ends in .yaml"
        raise ValueError(f"unknown genotype {shown(base)}{hint}")
    return entry.genotype


def _from_file(path: Path) -> Genotype:
    content = read_yaml(path)
    try:
        if isinstance(content, str):
            return parse_genotype(content)
        if not isinstance(content, Mapping):
            raise ValueError(f"expected a mapping with the keys {', '.join(FIELDS)}, or a literal")
        return Genotype.from_mapping(content)
    except ValueError as error:
        raise ValueError(f"genotype file {str(path)!r}: {error}") from None
