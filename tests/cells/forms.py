"""What programs of other projects print, by hand: one genotype in every form, and its cells."""

# ruff: noqa: E501
from __future__ import annotations

import html
import json
from typing import Any, NamedTuple

import yaml

from nas_lightning.cells import Genotype

# One cell of three nodes, all edges different, so that a swapped source, node or operation shows.
CELLS = Genotype(
    [
        ("sep_conv_3x3", 0), ("dil_conv_5x5", 1), ("skip_connect", 2), ("max_pool_3x3", 0), ("sep_conv_5x5", 1),
        ("avg_pool_3x3", 3),
    ],
    [2, 3, 4],
    [
        ("max_pool_3x3", 1), ("none", 0), ("sep_conv_5x5", 0), ("skip_connect", 2), ("dil_conv_3x3", 3),
        ("sep_conv_3x3", 2),
    ],
    [3, 4],
)  # fmt: skip

_NORMAL = (
    "('sep_conv_3x3', 0), ('dil_conv_5x5', 1)",
    "('skip_connect', 2), ('max_pool_3x3', 0)",
    "('sep_conv_5x5', 1), ('avg_pool_3x3', 3)",
)
_REDUCE = (
    "('max_pool_3x3', 1), ('none', 0)",
    "('sep_conv_5x5', 0), ('skip_connect', 2)",
    "('dil_conv_3x3', 3), ('sep_conv_3x3', 2)",
)
_FLAT = (
    f"normal=[{', '.join(_NORMAL)}], normal_concat=[2, 3, 4], "
    f"reduce=[{', '.join(_REDUCE)}], reduce_concat=[3, 4]"
)
_NESTED = (
    f"normal=[[{'], ['.join(_NORMAL)}]], normal_concat=range(2, 5), "
    f"reduce=[[{'], ['.join(_REDUCE)}]], reduce_concat=range(3, 5)"
)
_COMMENTED = _FLAT.replace(", reduce=", ",  # (step 2\n  reduce=")
_WEIGHTED = """normal=[('sep_conv_3x3', 0, 0.25), ('dil_conv_5x5', 1, 1.0), ('skip_connect', 2, 0.5),
    ('max_pool_3x3', 0, 0.1), ('sep_conv_5x5', 1, 1e-05), ('avg_pool_3x3', 3, 0.3)], normal_concat=[2, 3, 4],
  reduce=[('max_pool_3x3', 1, 0.2), ('none', 0, 0.2), ('sep_conv_5x5', 0, 0.2), ('skip_connect', 2, 0.2),
    ('dil_conv_3x3', 3, 0.2), ('sep_conv_3x3', 2, 0.2)], reduce_concat=[3, 4]"""

FORMS: dict[str, str] = {
    "flat": f"Genotype({_FLAT})",
    "nested by node": f"Genotype({_NESTED})",
    "nested in tuples": f"Genotype({_NESTED.replace('[[', '[(').replace('], [', '), (').replace(']]', ')]')})",
    "lower case": f"best genotype({_FLAT})",
    "assignments": _FLAT.replace("], ", "]\n").replace("=", " = "),
    "assignments in a log": "\n".join(f"03/12 10:00:00 PM {cell}" for cell in _FLAT.replace("], ", "]|").split("|")),
    "titles": f"Normal cell:\n[{', '.join(_NORMAL)}]\nnormal_concat: [2, 3, 4]\nReduction cell:\n[{', '.join(_REDUCE)}]\nreduce_concat: [3, 4]",
    "several strings": 'BEST = (\n    "Genotype(' + _NESTED.replace("], ", '], "\n    "') + ')"\n)',
    "dotted name": f"genotypes.Genotype({_FLAT})",
    "longer dotted name": f"darts.cnn.genotypes.Genotype({_FLAT})",
    "assigned": f"DARTS_V2 = Genotype({_FLAT})",
    "assigned twice": f"Q1 = genotype = genotypes.Genotype({_FLAT})",
    "annotated": f"MINE: Genotype = Genotype({_FLAT})",
    "log line": f"2019-10-04 16:08:33,123 genotype = Genotype({_FLAT})",
    "log line with a level": f"05/06 08:42:00 PM INFO [search.py:81] best genotype: Genotype({_FLAT})",
    "coloured log line": f"\x1b[32m12:00:01\x1b[0m genotype = Genotype({_FLAT})",
    "command line": f'python train.py --name aimg --genotype "Genotype({_NESTED})"',
    "comments": f"# FLOPS: 373M\n# searched for 50 epochs\nMINE = Genotype(\n  {_COMMENTED}\n)",
    "trailing commas": f"Genotype({_FLAT.replace(')]', '),]').replace('4]', '4,]')},)",
    "spaces": f"Genotype ( {_FLAT.replace('=', ' = ').replace('(', '( ')} )",
    "double quotes": f"Genotype({_FLAT})".replace("'", '"'),
    "numpy scalars": "Genotype(" + _FLAT.replace("3]", "np.int64(3)]").replace("', 1)", "', np.int64(1))") + ")",
    "numpy strings": f"Genotype({_FLAT})".replace("'skip_connect'", "np.str_('skip_connect')"),
    "numpy arrays": f"Genotype({_FLAT})".replace("[2, 3, 4]", "array([2, 3, 4])").replace("[3, 4]", "np.array([3, 4], dtype=int64)"),
    "arrays with a type": f"Genotype({_FLAT})".replace("[2, 3, 4]", "array([2, 3, 4], dtype=int64)"),
    "tensors": f"Genotype({_FLAT})".replace("[2, 3, 4]", "tensor([2, 3, 4])").replace("', 0)", "', tensor(0))"),
    "range": f"Genotype({_FLAT})".replace("[2, 3, 4]", "range(2,5)").replace("[3, 4]", "range(3, 5)"),
    "list of range": f"Genotype({_FLAT})".replace("[2, 3, 4]", "list(range(2, 5))"),
    "range in a comprehension": f"Genotype({_FLAT})".replace("[2, 3, 4]", "[i for i in range(2, 5)]"),
    "named edges": f"Genotype({_FLAT})".replace("('skip_connect', 2)", "Edge(op='skip_connect', source=2)"),
    "quotes of prose": f"Genotype({_FLAT})".replace("'", "\u2019"),
    "starred range": f"Genotype({_FLAT})".replace("[2, 3, 4]", "[*range(2, 5)]"),
    "further keys": f"Genotype({_FLAT}, connectN=None, connects=None, primitives='DartsPrimitives', source='original/darts')",
    "primitives as a list": f"Genotype({_FLAT}, primitives=['none', 'skip_connect'])",
    "weights": f"Genotype({_WEIGHTED})",
    "numpy weights": f"Genotype({_WEIGHTED})".replace("0.2)", "np.float32(0.2))"),
    "op, source, destination": """Genotype(normal=[('sep_conv_3x3', 0, 2), ('dil_conv_5x5', 1, 2),
        ('skip_connect', 2, 3), ('max_pool_3x3', 0, 3), ('sep_conv_5x5', 1, 4), ('avg_pool_3x3', 3, 4)],
        normal_concat=[2, 3, 4], reduce=[('max_pool_3x3', 1, 2), ('none', 0, 2), ('sep_conv_5x5', 0, 3),
        ('skip_connect', 2, 3), ('dil_conv_3x3', 3, 4), ('sep_conv_3x3', 2, 4)], reduce_concat=[3, 4])""",
    "op, destination, source": """FairDARTS_x = Genotype(normal=[('sep_conv_3x3', 2, 0), ('dil_conv_5x5', 2, 1),
        ('skip_connect', 3, 2), ('max_pool_3x3', 3, 0), ('sep_conv_5x5', 4, 1), ('avg_pool_3x3', 4, 3)],
        normal_concat=range(2, 5), reduce=[('max_pool_3x3', 2, 1), ('none', 2, 0), ('sep_conv_5x5', 3, 0),
        ('skip_connect', 3, 2), ('dil_conv_3x3', 4, 3), ('sep_conv_3x3', 4, 2)], reduce_concat=range(3, 5))""",
    "source first": """Genotype(normal=[(0, 'sep_conv_3x3'), (1, 'dil_conv_5x5'), (2, 'skip_connect'),
        (0, 'max_pool_3x3'), (1, 'sep_conv_5x5'), (3, 'avg_pool_3x3')], normal_concat=[2, 3, 4],
        reduce=[(1, 'max_pool_3x3'), (0, 'none'), (0, 'sep_conv_5x5'), (2, 'skip_connect'), (3, 'dil_conv_3x3'),
        (2, 'sep_conv_3x3')], reduce_concat=[3, 4])""",
    "other spellings": f"Genotype({_FLAT})".replace("'none'", "'null'").replace("skip_connect", "identity")
    .replace("sep_conv_3x3", "sep 3x3").replace("max_pool_3x3", "MaxPool3x3").replace("avg_pool_3x3", "avg_3x3"),
    "dict call": f"dict({_FLAT})",
    "printed dict": "genotype: {" + _FLAT.replace("normal=", "'normal': ").replace("normal_concat=", "'normal_concat': ")
    .replace("reduce=", "'reduce': ").replace("reduce_concat=", "'reduce_concat': ") + "}",
    "AutoDL, searched": "{'normal': [(('sep_conv_3x3', 0, 0.2), ('dil_conv_5x5', 1, 0.2)), (('skip_connect', 2, 0.1), "
    "('max_pool_3x3', 0, 0.1)), (('sep_conv_5x5', 1, 0.5), ('avg_pool_3x3', 3, 0.4))], 'normal_concat': [2, 3, 4], "
    "'reduce': [(('max_pool_3x3', 1, 0.3), ('none', 0, 0.2)), (('sep_conv_5x5', 0, 0.2), ('skip_connect', 2, 0.2)), "
    "(('dil_conv_3x3', 3, 0.9), ('sep_conv_3x3', 2, 0.8))], 'reduce_concat': [3, 4]}",
    "AutoDL, published": "SETN = Genotype(\n  normal=[\n    (" + "),  # step\n    (".join(_NORMAL) + ")],\n"
    "  normal_concat=[2, 3, 4],\n  reduce=[\n    (" + "),\n    (".join(_REDUCE) + ")],\n  reduce_concat=[3, 4],\n"
    "  connectN=None, connects=None\n)",
    "aw_nas": """CNNGenotype(normal_0=[('sep_conv_3x3', 0, 2), ('dil_conv_5x5', 1, 2), ('skip_connect', 2, 3),
        ('max_pool_3x3', 0, 3), ('sep_conv_5x5', 1, 4), ('avg_pool_3x3', 3, 4)], reduce_1=[('max_pool_3x3', 1, 2),
        ('none', 0, 2), ('sep_conv_5x5', 0, 3), ('skip_connect', 2, 3), ('dil_conv_3x3', 3, 4),
        ('sep_conv_3x3', 2, 4)], normal_0_concat=[2, 3, 4], reduce_1_concat=[3, 4])""",
    "aw_nas in YAML": """final_model_type: cnn_final_model
final_model_cfg:
  genotypes:
      CNNGenotype(normal_0=[('sep_conv_3x3', 0, 2), ('dil_conv_5x5', 1, 2), ('skip_connect',
      2, 3), ('max_pool_3x3', 0, 3), ('sep_conv_5x5', 1, 4), ('avg_pool_3x3', 3, 4)], reduce_1=[('max_pool_3x3',
      1, 2), ('none', 0, 2), ('sep_conv_5x5', 0, 3), ('skip_connect', 2, 3), ('dil_conv_3x3', 3, 4),
      ('sep_conv_3x3', 2, 4)], normal_0_concat=[2, 3,
      4], reduce_1_concat=[3, 4])
  init_channels: 36
""",
    "in a YAML string": "model:\n  genotype: 'Genotype(" + _FLAT.replace("'", "''") + ")'\n",
    "in a JSON string": '{"best": "Genotype(' + _FLAT.replace("'", '\\"') + ')", "epoch": 3}',
    "JSON": """{"normal": [["sep_conv_3x3", 0], ["dil_conv_5x5", 1], ["skip_connect", 2], ["max_pool_3x3", 0],
  ["sep_conv_5x5", 1], ["avg_pool_3x3", 3]], "normal_concat": [2, 3, 4],
  "reduce": [["max_pool_3x3", 1], ["none", 0], ["sep_conv_5x5", 0], ["skip_connect", 2], ["dil_conv_3x3", 3],
  ["sep_conv_3x3", 2]], "reduce_concat": [3, 4], "accuracy": null}""",
    "JSON, deeper": """{"runs": [{"epoch": 1, "genotype": {"normal": [[["sep_conv_3x3", 0], ["dil_conv_5x5", 1]],
  [["skip_connect", 2], ["max_pool_3x3", 0]], [["sep_conv_5x5", 1], ["avg_pool_3x3", 3]]], "normal_concat": [2, 3, 4],
  "reduction": [["max_pool_3x3", "1"], ["none", "0"], ["sep_conv_5x5", "0"], ["skip_connect", "2"],
  ["dil_conv_3x3", "3"], ["sep_conv_3x3", "2"]], "reduction_concat": [3, 4]}}]}""",
    "YAML": """# the best of three
normal: [[sep_conv_3x3, 0], [dil_conv_5x5, 1], [skip_connect, 2], [max_pool_3x3, 0], [sep_conv_5x5, 1], [avg_pool_3x3, 3]]
normal_concat: [2, 3, 4]
reduce:
- [[max_pool_3x3, 1], [none, 0]]
- [[sep_conv_5x5, 0], [skip_connect, 2]]
- [[dil_conv_3x3, 3], [sep_conv_3x3, 2]]
reduce_concat: [3, 4]
source: mine
""",
    "YAML, deeper": "cells:\n  mine:\n    normal: [[sep_conv_3x3, 0], [dil_conv_5x5, 1], [skip_connect, 2], "
    "[max_pool_3x3, 0], [sep_conv_5x5, 1], [avg_pool_3x3, 3]]\n    normal_concat: [2, 3, 4]\n"
    "    reduce: [[max_pool_3x3, 1], [none, 0], [sep_conv_5x5, 0], [skip_connect, 2], [dil_conv_3x3, 3], "
    "[sep_conv_3x3, 2]]\n    reduce_concat: [3, 4]\n",
    "NNI": """{"width": 36, "num_cells": 20,
  "normal/op_2_0": "sep_conv_3x3", "normal/input_2_0": [0], "normal/op_2_1": "dil_conv_5x5", "normal/input_2_1": [1],
  "normal/op_3_0": "skip_connect", "normal/input_3_0": [2], "normal/op_3_1": "max_pool_3x3", "normal/input_3_1": [0],
  "normal/op_4_0": "sep_conv_5x5", "normal/input_4_0": [1], "normal/op_4_1": "avg_pool_3x3", "normal/input_4_1": [3],
  "reduce/op_2_0": "max_pool_3x3", "reduce/input_2_0": 1, "reduce/op_2_1": "none", "reduce/input_2_1": 0,
  "reduce/op_3_0": "sep_conv_5x5", "reduce/input_3_0": 0, "reduce/op_3_1": "skip_connect", "reduce/input_3_1": 2,
  "reduce/op_4_0": "dil_conv_3x3", "reduce/input_4_0": 3, "reduce/op_4_1": "sep_conv_3x3", "reduce/input_4_1": 2,
  "normal_concat": [2, 3, 4], "reduce_concat": [3, 4]}""",
}  # fmt: skip
"""A text of every form; each gives ``CELLS``."""


class Printed(NamedTuple):
    """The named tuple of search codes, as JSON and YAML write it."""

    normal: list[tuple[str, int]]
    normal_concat: range
    reduce: list[tuple[str, int]]
    reduce_concat: range


PRINTED = Printed(
    [(op, source) for op, source in CELLS.normal],
    range(2, 5),
    [(op, source) for op, source in CELLS.reduce],
    range(3, 5),
)


def _data(op: str, source: str, destination: str = "") -> str:
    """JSON whose edges have named parts, with or without their destination."""

    def edge(node: int, name: str, place: int) -> dict[str, Any]:
        return {op: name, source: place} | ({destination: node} if destination else {})

    cells: dict[str, Any] = CELLS.as_mapping()
    for name, own in (("normal", CELLS.normal), ("reduce", CELLS.reduce)):
        cells[name] = [edge(node, *pair) for node, pair in zip(own.nodes, own, strict=True)]
        if destination:
            cells[name] = sorted(cells[name], key=lambda edge: -edge[destination])
    return json.dumps(cells)


def _by_number() -> str:
    cells: dict[str, Any] = CELLS.as_mapping()
    for name, own in (("normal", CELLS.normal), ("reduce", CELLS.reduce)):
        cells[name] = {str(node): edges for node, edges in enumerate(own.by_node, 2)}
    return json.dumps(cells)


_LITERAL = f"Genotype({_FLAT})"
_CELLS_ALONE = json.dumps(
    {
        "normal_cell": {"edges": CELLS.normal.listed(), "concat": [2, 3, 4]},
        "reduction_cell": {"edges": CELLS.reduce.listed(), "concat": [3, 4]},
    }
)

FORMS |= {
    "edges with named parts": _data("op", "from", "to"),
    "edges with named parts in other words": _data("operation", "input"),
    "edges with named parts in YAML": yaml.safe_dump(json.loads(_data("op", "source", "target"))),
    "nodes by number": _by_number(),
    "cells with their concat lists": _CELLS_ALONE,
    "a named tuple in JSON": json.dumps([*map(list, PRINTED)]),
    "a tuple": repr(tuple(PRINTED)),
    "a range in JSON": json.dumps(PRINTED._asdict(), default=str),
    "numbers in a text": json.dumps(CELLS.as_mapping() | {"normal_concat": "2,3,4", "reduce_concat": ["3", "4"]}),
    "yaml.dump": yaml.dump(PRINTED._asdict()),
    "yaml.dump of a named tuple": yaml.dump({"epoch": 3, "genotype": PRINTED}),
    "TOML": "[genotype]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in CELLS.as_mapping().items()),
    "arrays as NumPy prints them": _LITERAL.replace("[2, 3, 4]", "[2 3 4]").replace("[3, 4]", "[3 4]"),
    "sets": _LITERAL.replace("[2, 3, 4]", "{2, 3, 4}").replace("[3, 4]", "np.arange(3, 5)"),
    "tensors with gradients": f"Genotype({_WEIGHTED})".replace("0.2)", "tensor(0.2, grad_fn=<SelectBackward0>))"),
    "a web page": html.escape(_LITERAL),
    "a web page's spaces": _LITERAL.replace(", ", ",\xa0").replace("normal_", "\u200bnormal_"),
    "LaTeX": r"\texttt{" + _LITERAL.replace("_", r"\_").replace("('", "(`") + "}",
    "a terminal of 40 columns": "\n".join(_LITERAL[start : start + 40] for start in range(0, len(_LITERAL), 40)),
    "capital keys": _LITERAL.replace("normal=", "Normal=").replace("reduce=", "Reduce="),
}  # fmt: skip
