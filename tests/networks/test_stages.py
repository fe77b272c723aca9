"""Stages in one pass over memory against the same layers one by one."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nas_lightning.cells import Genotype
from nas_lightning.networks import CellNetwork, build_operation
from nas_lightning.networks import stages as module
from nas_lightning.networks.operations import ConvolutionStages, pointwise_projection
from nas_lightning.networks.stages import can_compute_stages

CELL = [("sep_conv_3x3", 0), ("dil_conv_3x3", 1), ("skip_connect", 2), ("sep_conv_5x5", 1)]
GENOTYPE = Genotype(CELL, [2, 3], CELL, [2, 3])

needs_compiler = pytest.mark.skipif(
    not can_compute_stages(torch.zeros(1)), reason="needs a C compiler with OpenMP"
)


@pytest.fixture
def fresh_library() -> Iterator[None]:
    """The library is looked for anew, and again afterwards."""
    module._library.cache_clear()
    yield
    module._library.cache_clear()


def made(name: str, channels: int, stride: int, dtype: torch.dtype = torch.float64) -> ConvolutionStages:
    torch.manual_seed(0)
    operation = pointwise_projection(3 * channels, channels)
    if name != "projection":
        built = build_operation(name, channels, stride)
        assert isinstance(built, ConvolutionStages)
        operation = built
    for parameter in operation.parameters():
        parameter.data = torch.randn_like(parameter)
    return operation.to(dtype)


def images(
    channels: int, size: tuple[int, int], dtype: torch.dtype = torch.float64, batch: int = 5
) -> Tensor:
    torch.manual_seed(1)
    x = torch.randn(batch, channels, *size, dtype=torch.float64).to(dtype)
    return x.contiguous(memory_format=torch.channels_last).requires_grad_()


def assert_equal_in_one_pass(
    operation: ConvolutionStages, x: Tensor, wide: int = 0, rtol: float = 1e-10, atol: float = 1e-11
) -> None:
    """Outputs, gradients and statistics; the gradient that arrives is some channels of wider images."""
    in_one_pass = copy.deepcopy(operation)
    in_one_pass.one_pass_in = "training"
    expected, actual = operation(x.relu()), in_one_pass(x)
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol)
    torch.manual_seed(2)
    batch, channels, *size = expected.shape
    arriving = torch.randn(batch, channels + wide, *size, dtype=x.dtype)
    arriving = arriving.contiguous(memory_format=torch.channels_last)[:, wide:]
    for one, other in zip(
        torch.autograd.grad(actual, [x, *in_one_pass.parameters()], arriving),
        torch.autograd.grad(expected, [x, *operation.parameters()], arriving),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=rtol, atol=atol * max(1.0, float(other.abs().max())))
    for one, other in zip(in_one_pass.buffers(), operation.buffers(), strict=True):
        torch.testing.assert_close(one, other, rtol=rtol, atol=atol)


@needs_compiler
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    "name", ["sep_conv_3x3", "sep_conv_5x5", "sep_conv_7x7", "dil_conv_3x3", "dil_conv_5x5"]
)
def test_a_separable_convolution_in_one_pass_is_its_layers(name: str, stride: int) -> None:
    for channels, size in ((16, (8, 8)), (1, (6, 16)), (18, (9, 11)), (40, (16, 7))):
        assert_equal_in_one_pass(made(name, channels, stride), images(channels, size))


@needs_compiler
@pytest.mark.parametrize("channels", [1, 7, 16, 24])
def test_a_projection_in_one_pass_is_its_layers(channels: int) -> None:
    for size in ((8, 8), (5, 3), (32, 40)):
        assert_equal_in_one_pass(made("projection", channels, 1), images(3 * channels, size))


@needs_compiler
def test_an_arriving_gradient_may_be_some_channels_of_wider_images() -> None:
    assert_equal_in_one_pass(made("sep_conv_3x3", 16, 1), images(16, (8, 8)), wide=3)
    assert_equal_in_one_pass(made("projection", 16, 1), images(48, (8, 8)), wide=48)


@needs_compiler
def test_images_of_another_memory_format_are_taken() -> None:
    x = images(16, (8, 8)).detach().contiguous().requires_grad_()
    assert_equal_in_one_pass(made("sep_conv_3x3", 16, 1), x)


@needs_compiler
@pytest.mark.parametrize("name", ["sep_conv_3x3", "dil_conv_5x5", "projection"])
def test_one_pass_in_float32_differs_by_rounding(name: str) -> None:
    channels = 48 if name == "projection" else 16
    operation, x = made(name, 16, 1, torch.float32), images(channels, (16, 16), torch.float32)
    assert_equal_in_one_pass(operation, x, rtol=1e-4, atol=1e-5)


@needs_compiler
def test_a_far_mean_does_not_spoil_the_variance() -> None:
    operation = made("projection", 16, 1, torch.float32)
    x = (images(48, (16, 16), torch.float32).detach() + 1000).requires_grad_()
    double = copy.deepcopy(operation).double()
    operation.one_pass_in = "training"
    operation(x)
    double(x.double().relu())
    variances = [list(one.buffers())[1].double() for one in (operation, double)]
    torch.testing.assert_close(*variances, rtol=1e-3, atol=0.0)


@needs_compiler
def test_factors_and_a_sum_are_taken_into_the_last_pass() -> None:
    operation, x = made("sep_conv_3x3", 18, 1), images(18, (9, 9))
    in_one_pass = copy.deepcopy(operation)
    in_one_pass.one_pass_in = "training"
    total = images(18, (9, 9)).detach().flip(0).requires_grad_()
    factors = torch.tensor([0.0, 1.25, 1.25, 0.0, 2.0], dtype=torch.float64)
    expected = total + operation(x.relu()) * factors[:, None, None, None]
    actual = in_one_pass.add_to(total, x, factors)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-11)
    arriving = torch.randn_like(expected)
    gradients = (
        torch.autograd.grad(y, [x, total, *of.parameters()], arriving)
        for y, of in ((actual, in_one_pass), (expected, operation))
    )
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@needs_compiler
@pytest.mark.parametrize("name", ["sep_conv_3x3", "sep_conv_7x7", "dil_conv_5x5", "projection"])
@pytest.mark.parametrize("stride", [1, 2])
def test_an_evaluation_in_one_pass_is_that_of_the_layers(name: str, stride: int) -> None:
    for channels, size in ((16, (8, 8)), (1, (6, 16)), (18, (9, 11)), (40, (16, 7))):
        operation = made(name, channels, stride)
        x = images(3 * channels if name == "projection" else channels, size)
        operation(x.relu())  # statistics other than 0 and 1
        expected = operation.eval()(x.relu())
        operation.one_pass_in = "evaluation"
        torch.testing.assert_close(operation(x), expected, rtol=1e-10, atol=1e-11)
        total = torch.randn_like(expected)
        torch.testing.assert_close(operation.add_to(total, x), total + expected, rtol=1e-10, atol=1e-11)


@needs_compiler
def test_the_number_of_threads_changes_no_bit() -> None:
    results = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            operation, x = (
                made("sep_conv_3x3", 18, 1, torch.float32),
                images(18, (9, 9), torch.float32, batch=37),
            )
            operation.one_pass_in = "training"
            output = operation(x)
            gradients = torch.autograd.grad(output.square().sum(), [x, *operation.parameters()])
            results.append([output, *gradients, *operation.buffers()])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@needs_compiler
def test_what_is_not_a_number_stays_so() -> None:
    operation, x = made("sep_conv_3x3", 16, 1), images(16, (8, 8)).detach()
    x[0, 0, 0, 0] = float("nan")
    operation.one_pass_in = "training"
    assert operation(x).isnan().any()


@needs_compiler
@pytest.mark.parametrize("auxiliary", [False, True])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_network_in_one_pass_is_the_network(auxiliary: bool, compiled: bool) -> None:
    torch.compiler.reset()
    torch.manual_seed(0)
    network = CellNetwork(GENOTYPE, 10, init_channels=4, num_cells=3, auxiliary=auxiliary, drop_path=True)
    network.double().drop_path_probability = 0.3
    in_one_pass = copy.deepcopy(network)
    in_one_pass.take_one_pass()
    if compiled:
        in_one_pass.compile_regions(backend="aot_eager")
    x = torch.randn(6, 3, 32, 32, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    results = []
    for one in (network, in_one_pass):
        torch.manual_seed(3)
        output = one(x)
        loss = sum(part.square().sum() for part in (output if auxiliary else (output,)))
        parameters = [p for p in one.parameters() if p.requires_grad]
        assert isinstance(loss, Tensor)
        results.append([loss, *torch.autograd.grad(loss, parameters), *one.buffers()])
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-8, atol=1e-9)
    network.eval()
    assert torch.allclose(in_one_pass.eval()(x), network(x), rtol=1e-8)
    in_one_pass.take_one_pass(None)
    assert not any(getattr(part, "one_pass_in", None) for part in in_one_pass.modules())


@needs_compiler
def test_a_network_that_is_cast_goes_back_to_layers() -> None:
    network = CellNetwork(GENOTYPE, 10, init_channels=4, num_cells=3)
    assert network.take_one_pass()
    assert network.double().cells[0].preprocess[1].one_pass_in == "training"  # type: ignore[index, union-attr]
    network.to(torch.bfloat16)
    assert network(torch.zeros(2, 3, 32, 32, dtype=torch.bfloat16)).isfinite().all()
    assert not any(getattr(part, "one_pass_in", None) for part in network.modules())


def test_without_a_compiler_layers_are_computed_one_by_one(
    monkeypatch: pytest.MonkeyPatch, fresh_library: None, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    network = CellNetwork(GENOTYPE, 10, init_channels=4, num_cells=3)
    network.take_one_pass()
    assert not can_compute_stages(torch.zeros(1))
    assert not any(getattr(part, "one_pass_in", None) for part in network.modules())


def test_a_compiler_that_fails_is_none(
    monkeypatch: pytest.MonkeyPatch, fresh_library: None, tmp_path: Path
) -> None:
    broken = tmp_path / "gcc"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert not can_compute_stages(torch.zeros(1))
    assert not list((tmp_path / "cache").rglob("*.so"))


@needs_compiler
def test_what_was_compiled_is_found_again(
    monkeypatch: pytest.MonkeyPatch, fresh_library: None, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert can_compute_stages(torch.zeros(1))
    (library,) = (tmp_path / "nas_lightning").iterdir()
    written = library.stat().st_mtime_ns
    module._library.cache_clear()
    assert can_compute_stages(torch.zeros(1))
    assert library.stat().st_mtime_ns == written
    library.unlink()  # the loaded one stays as it is
    library.write_bytes(b"no library")
    code = "import torch; from nas_lightning.networks.stages import can_compute_stages as can"
    subprocess.run([sys.executable, "-c", f"{code}; assert can(torch.zeros(1))"], check=True)
    assert library.stat().st_size > 1000


@needs_compiler
@pytest.mark.parametrize("place", ["/dev/full/cache", "file/cache"])
def test_a_place_that_cannot_be_written_costs_only_the_next_compilation(
    place: str, monkeypatch: pytest.MonkeyPatch, fresh_library: None, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", os.fspath(tmp_path / place))
    assert can_compute_stages(torch.zeros(1))


def test_other_numbers_are_left_to_the_layers() -> None:
    assert not can_compute_stages(torch.zeros(1, dtype=torch.bfloat16))
    assert not can_compute_stages(torch.zeros(1, device="meta"))
