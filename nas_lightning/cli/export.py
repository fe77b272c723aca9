"""`nas-lightning export`: a trained network as ONNX, as a program of torch.export, or as safetensors.

What is exported is the plain network in evaluation mode, without the auxiliary tower: it needs no operator of
this package.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_lightning.cli.argument_parser import (
    ArgumentParser,
    add_checkpoint_argument,
    checkpoint_first,
    named_path,
)
from nas_lightning.files import atomic_write

if TYPE_CHECKING:
    import torch

    from nas_lightning.networks import CellNetwork

_SUFFIXES = (".onnx", ".pt2", ".safetensors")


def main(arguments: Sequence[str]) -> None:
    """Run ``nas-lightning export``; a leading ``export`` is skipped."""
    options = argument_parser().parse(checkpoint_first(arguments))
    suffix = options.output.suffix
    if suffix not in _SUFFIXES:
        raise ValueError(f"`output` (={options.output}) must end in one of {', '.join(_SUFFIXES)}")
    needed = {".onnx": ("onnx", "onnxscript"), ".safetensors": ("safetensors",)}.get(suffix, ())
    for package in needed:
        _need(package, options.output)

    from nas_lightning.cli.trained import load_trained

    module, images = load_trained(options)
    image_size = 32 if images is None else images.image_size
    described = {
        "genotype": str(module.genotype),
        "num_classes": module.network.num_classes,
        "image_size": image_size,
        **({} if images is None else {key: getattr(images, key) for key in ("mean", "std", "class_names")}),
    }
    network = evaluation_network(module.network)
    write: Callable[[CellNetwork, int, dict[str, str]], bytes] = {
        ".onnx": onnx_bytes,
        ".pt2": program_bytes,
        ".safetensors": safetensors_bytes,
    }[suffix]
    content = write(network, image_size, {name: json.dumps(value) for name, value in described.items()})
    with atomic_write(options.output, "wb") as file:
        file.write(content)
    print(
        f"{options.output}: images [batch, 3, {image_size}, {image_size}], normalised as in training"
        if suffix != ".safetensors"
        else f"{options.output}: {len(network.state_dict())} tensors"
    )


def argument_parser() -> ArgumentParser:
    """The options of ``nas-lightning export``."""
    parser = ArgumentParser(
        prog="nas-lightning export",
        description="Write a trained network as ONNX, torch.export (.pt2) or safetensors.",
        allow_abbrev=False,
    )
    add_checkpoint_argument(parser)
    parser.add_argument(
        "-o",
        "--output",
        type=named_path,
        required=True,
        help=f"the file; its suffix is {', '.join(_SUFFIXES)}",
    )
    return parser


def evaluation_network(network: CellNetwork) -> CellNetwork:
    """A copy in evaluation mode, on the CPU, without the tower, which only training uses."""
    copied = copy.deepcopy(network).cpu().eval()
    copied.auxiliary_tower = None
    return copied


def onnx_bytes(network: CellNetwork, image_size: int, described: dict[str, str]) -> bytes:
    """The network as ONNX with any number of images, the description as its metadata."""
    import torch

    example, shapes = _example(image_size)
    with _quiet():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=["images"],
            output_names=["logits"],
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    for name, value in described.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = name, value
    return bytes(model.SerializeToString())


def program_bytes(network: CellNetwork, image_size: int, described: dict[str, str]) -> bytes:
    """The network as a program of torch.export with any number of images; ``torch.export.load`` reads it."""
    import torch

    example, shapes = _example(image_size)
    buffer = io.BytesIO()
    with _quiet():
        program = torch.export.export(network, (example,), dynamic_shapes=shapes)
        torch.export.save(program, buffer, extra_files={"description.json": json.dumps(described)})
    return buffer.getvalue()


def safetensors_bytes(network: CellNetwork, image_size: int, described: dict[str, str]) -> bytes:
    """The tensors by the names of the DARTS family of code, which `--reference_weights` reads."""
    from safetensors.torch import save

    from nas_lightning.networks import reference_names

    state = network.state_dict()
    tensors = {name: state[own].contiguous() for own, name in reference_names(network).items()}
    return save(tensors, metadata=described)


def _example(image_size: int) -> tuple[torch.Tensor, tuple[dict[int, Any], ...]]:
    """Two images, and which of their dimensions may change."""
    import torch

    return torch.zeros(2, 3, image_size, image_size), ({0: torch.export.Dim("batch", min=1)},)


def _need(package: str, output: Path) -> None:
    try:
        __import__(package)
    except ImportError:
        raise ValueError(
            f"`output` (={output}) needs the package {package}: pip install 'nas-lightning[export]'"
        ) from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporters' reports of their own progress."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "torch.export", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
