# ruff: noqa: E501
"""A fuzz test: texts near those that are read give a genotype or one line, in time."""

from __future__ import annotations

import random
import time
from pathlib import Path

from nas_lightning.cells import Genotype, get_genotype
from tests.cells.forms import FORMS

_CASES = 1000
_PIECES = (
    "Genotype(", "genotypes.Genotype(", "CNNGenotype(", "dict(", "(", ")", "[", "]", "{", "}", ",", ":", "=", "'", '"', "#", "\\",
    "\n", "\0", " ", "*", "**", "...", "range(2, 6)", "range(0, 10**9)", "list(range(2, 6))", "np.int64(", "array(", "normal",
    "normal=", "reduce_concat=", "'normal/op_2_0': ", "'normal/input_2_0': ", "'edge_normal_3': ", "inputs_node_normal_4: 0_1",
    "recurrent=", "|nor_conv_3x3~0|+", "none", "'sep_conv_3x3'", "sep 3x3", "0", "-1", "2", "0.5", "1e999", "9" * 5000, "None",
    "__import__('os')", "lambda: 0", "<<: *a", "&a ", "!!python/object:os.system ", "\x1b[31m", "é", "\ud800", "~", ".yaml",
)  # fmt: skip


def _mutated(text: str, draw: random.Random) -> str:
    for _ in range(draw.choice((1, 1, 2, 4))):
        at, end = sorted(draw.randrange(len(text) + 1) for _ in range(2))
        end = min(end, at + draw.choice((0, 1, 1, 2, 10, 100)))
        match draw.randrange(5):
            case 0:
                text = text[:at] + text[end:]
            case 1:
                text = text[:at] + draw.choice(_PIECES) + text[at:]
            case 2:
                text = text[:at] + draw.choice(_PIECES) + text[end:]
            case 3:
                text = text[:at] + text[at:end] * draw.randint(2, 4) + text[end:]
            case _:
                other = draw.choice(list(FORMS.values()))
                start = draw.randrange(len(other))
                text = text[:at] + other[start : start + (end - at)] + text[end:]
    return text


def test_mutated_texts_give_a_genotype_or_one_line(tmp_path: Path) -> None:
    draw = random.Random(13)
    path = tmp_path / "cell.yaml"
    read = 0
    for number in range(_CASES):
        text = _mutated(draw.choice(list(FORMS.values())), draw)
        spec: str | Path = text
        if number % 2:
            path.write_text(text, errors="replace")
            spec = path
        start = time.perf_counter()
        try:
            genotype = get_genotype(spec)
        except (ValueError, OSError) as error:
            message = str(error)
        else:
            message = ""
            assert isinstance(genotype, Genotype)
            assert get_genotype(str(genotype)) == genotype
            read += 1
        assert "\n" not in message, text
        assert len(message) < 1500, text
        assert time.perf_counter() - start < 5, text
    assert 50 < read < _CASES - 50  # the mutations reach what is read and what is refused
