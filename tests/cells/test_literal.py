from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from nas_lightning.cells import Genotype, get_genotype, parse_genotype
from tests.cells.strategies import genotype_arguments

DARTS = str(get_genotype("darts_v2"))


@given(genotype_arguments())
def test_printing_and_parsing_give_the_genotype_back(arguments: tuple[Any, Any, Any, Any]) -> None:
    genotype = Genotype(*arguments)
    assert parse_genotype(str(genotype)) == genotype
    assert parse_genotype(f"{genotype!r}") == genotype


def as_tuples(value: Any) -> Any:
    return tuple(map(as_tuples, value)) if isinstance(value, list) else value


@given(genotype_arguments(), st.data())
def test_white_space_tuples_ranges_and_order_do_not_matter(
    arguments: tuple[Any, Any, Any, Any], data: st.DataObject
) -> None:
    genotype = Genotype(*arguments)
    texts = {name: repr(value) for name, value in genotype.as_mapping().items()}
    concat = genotype.normal_concat
    if concat == tuple(range(concat[0], concat[-1] + 1)):
        texts["normal_concat"] = f"range({concat[0]}, {concat[-1] + 1})"
    texts["reduce"] = repr(as_tuples(genotype.as_mapping()["reduce"]))
    order = data.draw(st.permutations(list(texts)))
    literal = "Genotype(" + ", ".join(f"{name}={texts[name]}" for name in order) + ")"
    # Between tokens, inside brackets, white space is free.
    spaced = re.sub(r"(?<=[(,\[=])", lambda _: data.draw(st.sampled_from(["", " ", "\n  ", "\t"])), literal)
    prefix = data.draw(st.sampled_from(["", "MINE = ", "  x=", "\n"]))
    assert parse_genotype(prefix + spaced) == genotype


@given(genotype_arguments())
def test_arguments_by_position(arguments: tuple[Any, Any, Any, Any]) -> None:
    genotype = Genotype(*arguments)
    values = [repr(value) for value in genotype.as_mapping().values()]
    assert parse_genotype(f"Genotype({', '.join(values)})") == genotype
    by_both = f"Genotype({values[0]}, {values[1]}, reduce_concat={values[3]}, reduce={values[2]})"
    assert parse_genotype(by_both) == genotype


@settings(max_examples=30, deadline=None)  # each writes and reads four files
@given(genotype_arguments())
def test_a_yaml_file_gives_the_genotype_back(
    tmp_path_factory: pytest.TempPathFactory, arguments: tuple[Any, Any, Any, Any]
) -> None:
    genotype = Genotype(*arguments)
    folder = tmp_path_factory.mktemp("cells")
    for name, text in (
        ("mapping.yaml", yaml.safe_dump(genotype.as_mapping())),
        ("literal.yml", str(genotype)),
        ("assigned.yaml", f"MINE = {genotype}"),
        ("wrapped.YAML", str(genotype).replace("), (", "),\n  (")),
    ):
        path = folder / name
        path.write_text(text)
        assert get_genotype(path) == get_genotype(str(path)) == genotype


def test_search_codes_own_form_with_range() -> None:
    text = DARTS.replace("normal_concat=[2, 3, 4, 5]", "normal_concat=range(2, 6)")
    text = text.replace("reduce_concat=[2, 3, 4, 5]", "reduce_concat=range(2,6)")
    assert "range(2, 6)" in text
    assert get_genotype(f"DARTS_V2 = {text}") == get_genotype("darts_v2")


MALICIOUS = [
    "Genotype(__import__('os').system('touch {marker}'))",
    "Genotype(normal=[__import__('os').system('touch {marker}')], normal_concat=[2], reduce=[])",
    "Genotype(*open('{marker}', 'w'))",
    "Genotype(**dict(normal=open('{marker}', 'w')))",
    "Genotype(normal=[open('{marker}', 'w') for _ in (1,)], normal_concat=[2])",
    "Genotype(normal=(lambda: open('{marker}', 'w'))())",
    "Genotype(normal=range(0, 10**9), normal_concat=[2], reduce=[], reduce_concat=[])",
    "Genotype(normal=range(-1, 999999999), normal_concat=[2], reduce=[], reduce_concat=[])",
    'Genotype(normal=f\'{{open("{marker}", "w")}}\', normal_concat=[2], reduce=[], reduce_concat=[])',
    "open('{marker}', 'w') and Genotype()",
    "Genotype(normal=[]); open('{marker}', 'w')",
    "x = y = Genotype(normal=[])",
    "x[open('{marker}', 'w')] = Genotype(normal=[])",
    "(x := Genotype())",
    "os.Genotype(normal=[])",
    "Genotype(normal=[])(open('{marker}', 'w'))",
    "Genotype(" + "[" * 5000,
    "Genotype(" + "-" * 20_000 + "1)",
    "Genotype(" + "1+" * 2000 + "1)",
    "Genotype(" + "9" * 5000 + ")",
    "Genotype(" + " " * 200_000 + ")",
    "Genotype(normal='\x00')",
    "Genotype(b'sep_conv_3x3')",
    "Genotype(1.5, 2j, None, ...)",
    "Genotype",
    "Genotype(",
    "",
]


@pytest.mark.parametrize("text", MALICIOUS, ids=range(len(MALICIOUS)))
def test_anything_else_is_refused_in_one_line_and_never_run(tmp_path: Path, text: str) -> None:
    marker = tmp_path / "marker"
    for read in (parse_genotype, get_genotype):
        with pytest.raises(ValueError, match=r"\A[^\n]{1,600}\Z"):
            read(text.replace("{marker}", str(marker)))
    assert not marker.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (DARTS.replace("normal=", "norml=", 1), "unknown argument 'norml'; did you mean 'normal'?"),
        (DARTS[:-1] + ", upsample=[('skip_connect', 0)])", "'upsample' holds a further cell"),
        (DARTS[:-1] + ", normal=[])", "argument 'normal' is given twice"),
        (DARTS.replace("Genotype(", "Genotype([], ", 1), "argument 'normal' is given twice"),
        (DARTS.replace(", reduce_concat=[2, 3, 4, 5]", ""), "missing argument 'reduce_concat'"),
        (DARTS.replace("('sep_conv_3x3', 0)", "('sep_conv_3x3', x)", 1), "'x' is not allowed"),
        (DARTS.replace("[2, 3, 4, 5]", "range(2, 6, 0)"), "'range(2, 6, 0)' is not allowed"),
        ("Genotype([], [], [], [], [])", "5 arguments"),
    ],
)
def test_a_faulty_literal_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_genotype(text)


@given(genotype_arguments())
def test_edges_may_be_grouped_by_node(arguments: tuple[Any, Any, Any, Any]) -> None:
    genotype = Genotype(*arguments)
    fields = genotype.as_mapping()
    for name in ("normal", "reduce"):
        fields[name] = [list(map(tuple, own)) for own in getattr(genotype, name).by_node]
    literal = ", ".join(f"{name}={value!r}" for name, value in fields.items())
    assert parse_genotype(f"GENOTYPE=Genotype({literal})") == genotype


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ("[[[('skip_connect', 0)], [('skip_connect', 1)]]]", "must be a pair"),
        (
            "[[('skip_connect', 0), ('skip_connect', 1)], ('none', 0), ('none', 1)]",
            "'none', 0.* beside lists",
        ),
        ("[[], [('skip_connect', 3)]]", "node 3, edge 1 of 1: source 3"),
    ],
)
def test_faulty_groups_are_refused(edges: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_genotype(f"Genotype({edges}, [2], [('skip_connect', 0), ('skip_connect', 1)], [2])")
