from __future__ import annotations

import argparse
import os
from collections import Counter, defaultdict, namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nas_lightning.networks.weight_files import read_weight_file

Genotype = namedtuple("Genotype", "normal normal_concat")


class Settings(dict[str, Any]):
    """Settings with attributes, as many programs have them."""


def state() -> dict[str, Any]:
    return nn.Conv2d(3, 4, 3, bias=False).state_dict()


BESIDE: dict[str, Any] = {
    "accuracy": np.float64(97.2),
    "epoch": np.int64(3),
    "done": np.bool_(True),
    "curve": np.arange(3.0),
    "random": np.random.RandomState(0).get_state(),
    "args": argparse.Namespace(lr=0.1),
    "genotype": Genotype([("skip_connect", 0)], [2]),
    "path": Path("a"),
    "device": torch.device("cpu"),
    "set": {1, 2},
    "counter": Counter("aa"),
    "default": defaultdict(list, a=[1]),
    "optimizer": torch.optim.SGD([torch.ones(2, requires_grad=True)], 0.1, momentum=0.9).state_dict(),
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
@pytest.mark.parametrize("key", BESIDE)
def test_what_stands_beside_the_weights(tmp_path: Path, key: str, zipped: bool) -> None:
    path, tensors = tmp_path / "a.pt", state()
    torch.save({"state_dict": tensors, key: BESIDE[key]}, path, _use_new_zipfile_serialization=zipped)
    content = read_weight_file(path).content
    assert torch.equal(content["state_dict"]["weight"], tensors["weight"])


def test_numbers_of_numpy_keep_their_value(tmp_path: Path) -> None:
    torch.save({"accuracy": np.float64(97.25), "curve": np.arange(3)}, tmp_path / "a.pt")
    content = read_weight_file(tmp_path / "a.pt").content
    assert content["accuracy"] == 97.25
    assert list(content["curve"]) == [0, 1, 2]


def test_mappings_of_another_program(tmp_path: Path) -> None:
    torch.save({"state_dict": state(), "config": Settings(lr=0.1)}, tmp_path / "a.pt")
    found = read_weight_file(tmp_path / "a.pt")
    assert "weight" in found.content["state_dict"]
    assert found.classes == (f"{__name__}.Settings",)
    assert found.module_class is None


def test_safetensors(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    for name in ("a.safetensors", "a.bin"):
        tensors = state()
        safetensors.save_file(tensors, tmp_path / name)
        found = read_weight_file(tmp_path / name)
        assert torch.equal(found.content["weight"], tensors["weight"])
        assert not found.ordered
    (tmp_path / "b.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="damaged safetensors file"):
        read_weight_file(tmp_path / "b.safetensors")


class Harmful:
    """Would run a command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch harmed",)


def test_nothing_of_a_file_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": state(), "x": Harmful()}, "a.pt")
    with pytest.raises(ValueError, match=r"it names posix\.system, code that would run"):
        read_weight_file(Path("a.pt"))
    assert not Path("harmed").exists()


@pytest.mark.parametrize("content", [b"x", b"PK\x03\x04", b"\x80\x02."])
def test_damaged_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="it is damaged, or no file of torch"):
        read_weight_file(path)
    with pytest.raises(FileNotFoundError):
        read_weight_file(tmp_path)


def test_another_pickle_protocol(tmp_path: Path) -> None:
    torch.save({"state_dict": state()}, tmp_path / "a.pt", pickle_protocol=4)
    with pytest.raises(ValueError, match="a pickle protocol that cannot be read safely"):
        read_weight_file(tmp_path / "a.pt")


def test_torchscript_archives(tmp_path: Path) -> None:
    torch.jit.script(nn.Conv2d(3, 4, 3)).save(str(tmp_path / "a.pt"))  # type: ignore[no-untyped-call]
    with pytest.raises(ValueError, match=r"TorchScript archive.*torch\.jit\.load\('a\.pt'\)"):
        read_weight_file(tmp_path / "a.pt")
