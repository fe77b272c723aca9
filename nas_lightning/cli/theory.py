"""`nas-lightning theory`: theorems 4.2 and 4.3 of the paper on random linear cells.

Starts quickly: torch, NumPy and matplotlib are imported after the arguments are checked.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nas_lightning.cli.argument_parser import ArgumentParser, integer
from nas_lightning.cli.tables import table

if TYPE_CHECKING:
    import xarray as xr

_TITLES = {
    "theorem_4_3": "Theorem 4.3, gradient variance of the narrowest cell (spectral norm)",
    "theorem_4_2": "Theorem 4.2 as printed, block-wise Lipschitz constant of the narrowest cell",
    "corrected_4_2": "The corrected bound, block-wise Lipschitz constant of the narrowest cell",
}


def main(arguments: Sequence[str]) -> None:
    """Run ``nas-lightning theory``; a leading ``theory`` is skipped."""
    options = argument_parser().parse(arguments, default=())
    if options.output is not None:
        from nas_lightning.figures import picture_format

        picture_format(options.output)

    from nas_lightning.analysis.linear_cells import random_instances
    from nas_lightning.analysis.theory import theorem_4_2, theorem_4_3

    instances = random_instances(
        options.instances, options.seed, nodes=options.nodes, dimension=options.dimension
    )
    variance, smoothness = theorem_4_3(instances), theorem_4_2(instances, seed=options.seed)
    record = {
        "instances": options.instances,
        "nodes": options.nodes,
        "dimension": options.dimension,
        "seed": options.seed,
        **summarize(variance, smoothness),
    }
    if options.output is not None:
        from nas_lightning.figures import write_figure
        from nas_lightning.figures.theory import draw_theory

        write_figure(draw_theory(variance, smoothness), options.output)
        record["figure"] = options.output
    print(json.dumps(record, indent=2) if options.format == "json" else theory_text(record))


def summarize(variance: xr.Dataset, smoothness: xr.Dataset) -> dict[str, Any]:
    """Measured value divided by bound, per matrix and over all, of two results on the same instances.

    For ``theorem_4_3``, ``theorem_4_2`` and ``corrected_4_2`` a list of records: ``node`` (i, or ``None`` for
    all), ``cases``, ``median`` and ``maximum`` of the ratio, and ``beyond``, the number of cases in which it
    exceeds one by more than rounding. ``explanation``: of the cases beyond theorem 4.2, how many the missing
    factor alone explains, and how many need the later nodes' terms.
    """
    spectral = variance.sel(norm="spectral")
    beyond = smoothness["beyond"]
    within_squared = smoothness["constant"] <= smoothness["squared_bound"]
    return {
        "theorem_4_3": _ratios(spectral, "variance", "bound"),
        "theorem_4_2": _ratios(smoothness, "constant", "paper_bound"),
        "corrected_4_2": _ratios(smoothness, "constant", "corrected_bound"),
        "explanation": {
            "missing_factor": int((beyond & within_squared).sum()),
            "later_nodes": int((beyond & ~within_squared).sum()),
        },
    }


def theory_text(record: dict[str, Any]) -> str:
    """The settings and the result of :func:`summarize` as tables."""
    nodes = " ".join(map(str, record["nodes"]))
    lines = [
        f"random instances: {record['instances']}, nodes: {nodes}, dimension: {record['dimension']}, "
        f"seed: {record['seed']}",
        "measured / bound; i counts the matrices W(i) from the input",
    ]
    for name, title in _TITLES.items():
        rows = [
            [
                "all" if row["node"] is None else str(row["node"]),
                str(row["cases"]),
                f"{row['median']:.3g}",
                f"{row['maximum']:.3g}",
                str(row["beyond"]),
            ]
            for row in record[name]
        ]
        lines += ["", title, table(("i", "cases", "median", "maximum", "beyond"), rows, left=0)]
        reasons = record["explanation"]
        if name == "theorem_4_2" and any(reasons.values()):
            lines += [
                f"Of those beyond, {reasons['missing_factor']} by the missing second factor "
                "lambda(1)...lambda(i-1) alone,",
                f"{reasons['later_nodes']} only with the terms of later nodes k > i, which W(i) moves too.",
            ]
    if "figure" in record:
        lines += ["", record["figure"]]
    return "\n".join(lines)


def _ratios(cases: xr.Dataset, measured: str, bound: str) -> list[dict[str, Any]]:
    import numpy as np

    from nas_lightning.analysis.theory import TOLERANCE

    value, limit = cases[measured].to_numpy(), cases[bound].to_numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        # Zero against zero is within the bound.
        ratio = np.where((value == 0) & (limit == 0), 0.0, value / limit)
    node = cases["node"].to_numpy()
    rows = []
    for i in [*np.unique(node).tolist(), None]:
        chosen = ratio if i is None else ratio[node == i]
        rows.append(
            {
                "node": i,
                "cases": len(chosen),
                "median": float(np.median(chosen)),
                "maximum": float(chosen.max()),
                "beyond": int((chosen > 1 + TOLERANCE).sum()),
            }
        )
    return rows


def argument_parser() -> ArgumentParser:
    """The options of ``nas-lightning theory``."""
    parser = ArgumentParser(
        prog="nas-lightning theory",
        description="Compare gradient variances and block-wise Lipschitz constants of random linear cells "
        "with the bounds of the paper's theorems 4.2 and 4.3, and with a corrected bound for theorem 4.2.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--instances", type=integer(1, 100_000), default=120, help="how many cells to measure (120)"
    )
    parser.add_argument(
        "--nodes",
        type=integer(1, 12),
        nargs="+",
        default=[2, 3, 4],
        metavar="N",
        help="numbers of intermediate nodes, 1 to 12 (2 3 4)",
    )
    parser.add_argument(
        "--dimension", type=integer(1, 32), default=4, help="length of the nodes' vectors, 1 to 32 (4)"
    )
    parser.add_argument("--seed", type=integer(0, 2**63 - 1), default=0, help="of all random numbers (0)")
    parser.add_argument("-o", "--output", metavar="FILE", help="draw the figure: FILE.png, .svg or .pdf")
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="format of the output (text)"
    )
    return parser
