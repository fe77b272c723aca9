"""Genotype specs: one string, file or mapping that names a genotype.

================================  ============================================================
``darts_v2``                      a published genotype, or an alias (``darts``, ``snas``)
``darts_conn1``                   a variant that the paper's authors published
``cells/mine.yaml``               a file of any suffix, read as text: a mapping or a literal
``search.log#3``                  the third genotype of a file that has several
``genotypes.py#PDARTS``           the one of that name
``Genotype(normal=[...], ...)``   the literal that search codes print, or any text with one
``{"normal/op_2_0": ...}``        a mapping as other projects write it
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

from nas_lightning.cells.forms import Reading, read_mapping_form
from nas_lightning.cells.genotype import Genotype
from nas_lightning.cells.genotype_files import read_genotype_file
from nas_lightning.cells.literal import is_literal, read_text
from nas_lightning.cells.names import find_published, full_name, unknown_name_hint
from nas_lightning.cells.operations import nearest
from nas_lightning.cells.published import PublishedGenotype
from nas_lightning.cells.python_text import shown
from nas_lightning.cells.table2 import TABLE2, is_stand_in
from nas_lightning.cells.variants import (
    adapted,
    random_connections,
    random_operations,
    rewired,
    table2_variant,
    widest_shallowest,
)
from nas_lightning.files import is_file

GenotypeSpec: TypeAlias = str | Mapping[str, Any] | os.PathLike[str] | Genotype

VARIANTS = "connections=SEED, operations=SEED, wiring=DIGITS, adapted or C1 to C13"

# A suffix starts with a letter, so that no variant looks like a file.
_SUFFIX = re.compile(r"[^=]*[^/\\=]\.[A-Za-z]\w{0,9}")
_VARIANT = re.compile(r"(?:connections|operations|wiring)=.*|adapted|C\d+")


def get_genotype(spec: GenotypeSpec) -> Genotype:
    """Find the genotype that a spec names.

    Args:
        spec: A string as in the table above, the path of a file, a mapping of one of the forms of
            :mod:`nas_lightning.cells.forms`, or a genotype (returned as it is).

    Returns:
        The genotype.

    Raises:
        ValueError: If the spec has no such form, names nothing known (a misspelt name is suggested), or the
            genotype is not valid.
        FileNotFoundError: If the file does not exist.
        OSError: If the file cannot be read.

    Example:
        >>> get_genotype("darts:adapted").normal_concat
        (2, 3, 4, 5)
    """
    return read_genotype(spec).genotype


def genotype_notes(spec: GenotypeSpec) -> tuple[str, ...]:
    """What a user should know of how a spec is read: what was dropped, renamed or chosen. Mostly nothing."""
    return read_genotype(spec).notes


def read_genotype(spec: GenotypeSpec) -> Reading:
    """Find the genotype that a spec names, with remarks on how it was read.

    Raises:
        ValueError, OSError: As :func:`get_genotype`.
    """
    if isinstance(spec, Genotype):
        return Reading(spec)
    if isinstance(spec, Mapping):
        return read_mapping_form(spec)
    if not isinstance(spec, str | os.PathLike):
        raise ValueError(f"a genotype must be a name, a file, a literal or a mapping, not {spec!r}")
    text = os.fspath(spec).strip()
    if isinstance(spec, str) and is_literal(text):
        return read_text(text)
    if isinstance(spec, os.PathLike) or _is_file(text):
        return _from_file(text)
    base, variant = _split(text)
    reading = _from_file(base) if _is_file(base) else Reading(_published(base))
    if variant is None:
        return reading
    entry = find_published(base)
    if entry is not None and entry.variant_of:
        raise ValueError(
            f"genotype {shown(text)}: {base} is a variant of {entry.variant_of} already; vary that one"
        )
    try:
        varied = apply_variant(reading.genotype, full_name(base) or base, variant)
    except ValueError as error:
        raise ValueError(f"genotype {shown(text)}: {error}") from None
    return reading._replace(genotype=varied)


def genotype_slug(spec: GenotypeSpec) -> str:
    """A short name for a spec, fit for folder and file names.

    Args:
        spec: A genotype spec; it is not resolved, so a file need not exist.

    Returns:
        For example ``"darts_v2-connections7"``, ``"enas-C4"``, the stem of a file, with what stands after
        ``#``, or ``"genotype-<8 hexadecimal digits>"`` (of the SHA-256 of the literal) for literals, mappings
        and genotypes. Other spellings of a name give the name.

    Raises:
        ValueError: If a literal or mapping is not valid.
    """
    if isinstance(spec, Genotype | Mapping) or (not isinstance(spec, os.PathLike) and is_literal(spec)):
        digest = hashlib.sha256(str(get_genotype(spec)).encode()).hexdigest()
        return f"genotype-{digest[:8]}"
    text = os.fspath(spec).strip()
    base, variant = (text, None) if isinstance(spec, os.PathLike) else _split(text)
    if isinstance(spec, os.PathLike) or _is_file(base):
        file, which = _file_and_choice(base)
        parts = [Path(file).stem, *([which] if which else [])]
    else:
        parts = [full_name(base) or base]
    parts += [variant.replace("=", "")] if variant is not None else []
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
    names = ("connections", "operations", "wiring", "adapted")
    meant = "" if key in names else nearest(key, names)
    raise ValueError(f"unknown variant {variant!r}; it must be {VARIANTS}{meant}")


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
    entry = None if _is_file(base) else find_published(base)
    return None if entry is None else (entry, variant)


def file_and_variant(spec: str, folder: Path | None = None) -> tuple[str, str | None] | None:
    """The file that a spec names, with what stands after ``#``, and the variant; None if it names no file.

    ``folder`` is the one that paths are relative to; by default the working folder.
    """
    if is_literal(spec):
        return None
    base, variant = _split(spec.strip(), folder)
    return (base, variant) if _is_file(base, folder) else None


def _split(text: str, folder: Path | None = None) -> tuple[str, str | None]:
    """A spec's base and variant."""
    base, colon, variant = text.rpartition(":")
    if not colon or _is_file(text, folder):
        return text, None
    if not _is_file(base, folder) and ":" in base:
        raise ValueError(f"genotype {shown(text)} has more than one ':'; it takes one variant, {VARIANTS}")
    return base.strip(), re.sub(r"\s+", "", variant)


def _is_file(base: str, folder: Path | None = None) -> bool:
    """Whether a base names a file: by a suffix or a folder, or because there is one and no such cell."""
    file, _, _ = base.partition("#")
    if _VARIANT.fullmatch(base.rpartition(":")[2]) and ":" in base:
        return False
    if _SUFFIX.fullmatch(file) or _SUFFIX.fullmatch(base) or os.sep in file:
        return True
    return full_name(base) is None and len(base) < 256 and (_exists(file, folder) or _exists(base, folder))


def _exists(path: str, folder: Path | None = None) -> bool:
    return path != "" and is_file(Path(folder or "", path))


def _file_and_choice(base: str) -> tuple[str, str]:
    """A file's path and which of its genotypes: ``FILE#3`` or ``FILE#NAME``."""
    file, _, which = base.partition("#")
    return (base, "") if _exists(base) else (file.strip(), which.strip())


def _from_file(base: str) -> Reading:
    file, which = _file_and_choice(base)
    if not file or "\0" in file:
        raise ValueError(f"genotype {shown(base)} is no name of a file")
    return read_genotype_file(Path(file), which)


def _published(base: str) -> Genotype:
    entry = find_published(base)
    if entry is None:
        raise ValueError(f"unknown genotype {shown(base)}{unknown_name_hint(base)}")
    return entry.genotype
