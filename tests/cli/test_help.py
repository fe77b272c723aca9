"""The short help shows settings that exist with their true defaults, and comes without the parser."""

from __future__ import annotations

import pytest

from nas_lightning.cli.completion import real_settings
from nas_lightning.cli.help import TRAINING, help_text, setting_groups
from nas_lightning.cli.main import main
from nas_lightning.cli.setting_names import class_names, nested_settings
from nas_lightning.identity import flatten
from tests.cli.parsing import ParsedLandscape, ParsedOnly


@pytest.mark.parametrize("subcommand", TRAINING)
def test_every_setting_of_the_help_exists(subcommand: str) -> None:
    known = {key for key, _, _ in real_settings(subcommand)} | set(nested_settings())
    known |= {"trainer.callbacks+", "trainer.callbacks.CLASS.SETTING", ""}
    known |= {"model.ends"} if subcommand == "fit" else set()  # with it there is another parser
    shown = [key for settings in setting_groups(subcommand).values() for key, *_ in settings]
    assert set(shown) <= known
    ours = {key for key, _, _ in real_settings(subcommand) if not key.startswith("trainer")}
    assert ours - {"model", "model.num_classes", "weights_only", "verbose"} <= set(shown)


def test_its_defaults_are_the_parser_s() -> None:
    settings = flatten(ParsedLandscape(["landscape"]).settings.as_dict())
    settings |= flatten(ParsedOnly(["fit"]).settings.as_dict())
    for group in setting_groups("landscape").values():
        for key, _, _, default in group:
            outer, _, name = key.rpartition(".")
            nested = f"{outer}.init_args.{name}"
            if default:
                assert str(settings.get(key, settings.get(nested))) == default, key


def test_it_names_all_data_sets_and_analyses() -> None:
    text = help_text("fit", "train")
    assert all(name in text for name in (*class_names()["data"], *class_names()["trainer.callbacks"][:4]))
    assert max(map(len, text.splitlines())) <= 110


def test_ours_come_first_and_help_all_has_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["fit", "--help"])
    short = capsys.readouterr().out
    assert short.index("--config") < short.index("--model.genotype") < short.index("--trainer.max_epochs")
    assert "--trainer.detect_anomaly" not in short
    with pytest.raises(SystemExit) as end:
        main(["fit", "--help_all"])
    assert not end.value.code
    assert "--trainer.detect_anomaly" in capsys.readouterr().out
