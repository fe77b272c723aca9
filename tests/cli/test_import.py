"""`nas-lightning study import` as a user types it, and the example of docs/import.md."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from nas_lightning.cli.study import main
from nas_lightning.study.import_table import OPTIONAL, REQUIRED
from nas_lightning.study.imported import sources
from nas_lightning.study.read import read_study
from nas_lightning.study.results import collect_results
from tests.cli.commands import run_process
from tests.study.import_files import write_random_darts

DOCUMENT = (Path(__file__).parents[2] / "docs" / "import.md").read_text(encoding="utf-8")


def test_import_status_and_report_in_processes_of_their_own(tmp_path: Path) -> None:
    pickled, array = write_random_darts(tmp_path, count=7)
    pickled.write_bytes(pickled.read_bytes().replace(b"skip_connect", b"skip_conneXt", 1))
    files = [pickled.name, array.name]
    done = run_process(["study", "import", "random-darts", *files, "-o", "mine.yaml"], tmp_path)
    assert done.stdout == "mine.yaml: 6 runs of 6 cells, 1 left out\n"
    assert re.search("^genotypes.pkl, row 1 is left out: ", done.stderr, re.MULTILINE)
    status = run_process(["study", "status", "mine.yaml"], tmp_path).stdout
    assert "6 runs imported from random-darts" in status
    assert "genotypes.pkl, row 1 is left out" in status
    record = json.loads(run_process(["study", "status", "mine.yaml", "--json"], tmp_path).stdout)
    assert (record["runs"], record["imported"]["left_out"]) == (6, 1)
    page = tmp_path / run_process(["study", "report", "mine.yaml"], tmp_path).stdout.strip()
    assert "Imported results." in page.read_text(encoding="utf-8")
    assert len(pd.read_csv(page.with_name("results.csv"))) == 6
    assert len(pd.read_parquet(page.with_name("curves.parquet"))) == 60


@pytest.mark.parametrize("command", ["run", "plan", "commands"])
def test_there_is_nothing_to_run(tmp_path: Path, command: str) -> None:
    files = map(str, write_random_darts(tmp_path))
    main(["study", "import", "random-darts", *files, "-o", str(tmp_path / "mine.yaml")])
    with pytest.raises(ValueError, match=r"mine\.yaml holds imported results: there is nothing to run"):
        main(["study", command, str(tmp_path / "mine.yaml")])


def test_power_takes_imported_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = map(str, write_random_darts(tmp_path, count=7))
    main(["study", "import", "random-darts", *files, "-o", str(tmp_path / "mine.yaml")])
    main(["study", "power", str(tmp_path / "mine.yaml"), "--studies", "100"])
    printed = capsys.readouterr().out
    assert "architectures: from results, 6 degrees of freedom" in printed
    assert re.search(r"^width +regularized +1 +7 +1 ", printed, re.MULTILINE)


def test_the_command_knows_every_source(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="invalid choice: 'other'") as caught:
        main(["study", "import", "other", "x", "-o", str(tmp_path / "mine.yaml")])
    assert all(source in str(caught.value) for source in sources())


def test_the_example_of_the_document(tmp_path: Path) -> None:
    found = re.search(r"```csv\n(.*?)```", DOCUMENT, re.DOTALL)
    assert found is not None
    (tmp_path / "mine.csv").write_text(found.group(1))
    study = tmp_path / "mine.yaml"
    main(["study", "import", "table", str(tmp_path / "mine.csv"), "-o", str(study), "--citation", "Me, 2026"])
    results = collect_results(read_study(study))
    assert results.problems == ()
    assert results.runs["architecture"].tolist() == ["darts_v2", "darts_conn1", "mine:cell 1"]
    assert results.runs["final_accuracy"].tolist() == [0.62, 0.60, 0.47]
    assert results.runs["final_train_loss"].tolist() == [1.24, 1.31, 1.55]


def test_the_document_names_every_column_of_a_table() -> None:
    rows = re.findall(r"^\| (`.*?) \|", DOCUMENT, re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert {name for name in named if name not in sources()} == {*REQUIRED, *OPTIONAL}
