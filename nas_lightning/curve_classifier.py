"""CurveClassifier: a curve of low loss between two trained networks, trained as a LightningModule."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from lightning.pytorch import Callback
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.func import functional_call
from torch.optim import Optimizer

from nas_lightning.analysis import estimate_running_statistics
from nas_lightning.analysis.bezier_curve import (
    at_weights,
    curve_point,
    flat_weights,
    line_point,
    named_weights,
)
from nas_lightning.callbacks.analysis import Analysis
from nas_lightning.callbacks.curve_ends import KEY, check_different, end_files, read_ends
from nas_lightning.callbacks.likeness import SIZES
from nas_lightning.callbacks.loader_batches import check_data, read_batches
from nas_lightning.callbacks.mode_connectivity import ModeConnectivity
from nas_lightning.classifier import CellClassifier
from nas_lightning.provenance import run_seed

MIDDLE = 0.5
"""The position on the curve that is evaluated after every epoch."""


class CurveClassifier(CellClassifier):
    """A quadratic Bézier curve of weights between two trained networks A and B of one genotype.

        phi(t) = (1 - t)^2 A + 2 t (1 - t) theta + t^2 B

    The ends stay as they are; the bend theta, which starts half-way between them, is trained to minimise
    E_{t ~ U(0, 1)} L(phi(t)), L the loss of the training: every batch is evaluated at one t of its own.
    ``network`` is the ordinary network and holds theta; ``torch.func.functional_call`` evaluates it at the
    weights phi(t). Source: Garipov et al. (NeurIPS 2018), sections 3.1 to 3.3.

    - t is drawn from (seed, epoch, batch, rank): a resumed training goes on with the same ones, and the ranks
      of a distributed training see different ones, whose gradients are averaged.
    - In training, batch norm normalises with the batch, at the weights phi(t). The running statistics that
      it leaves behind belong to no weights and are never used: wherever a point is evaluated, they are
      estimated anew from training images.
    - The optimiser's weight decay acts on the point, as the authors' code does: it is the term
      (weight_decay / 2) ||phi(t)||^2 of the loss, over the live parameters. On theta itself the optimiser
      does not decay.
    - After every epoch the middle, t = 1/2, is evaluated. That, and the mean over t of the training loss, is
      what a run logs. A :class:`nas_lightning.callbacks.ModeConnectivity`, which the module brings, measures
      the whole curve at the end.
    - Drop path and auxiliary tower work as in :class:`CellClassifier`; a tower is part of the curve, so the
      ends must have one. Training runs the plain network whatever the ``speed``.

    Checkpoints hold theta and both ends, so that resuming needs no other file.

    Args:
        ends: Checkpoints of A and B, or the folders of their runs. They must agree in genotype, sizes,
            classes and data.
        statistics_samples: Most training images from which running statistics are estimated; they are drawn
            by the seed 0.
        settings: Those of :class:`CellClassifier`; on the command line, genotype, sizes and data are those of
            the ends.

    Attributes:
        end_weights: The parameters of A and B, one row each, in the order of ``network.named_parameters()``.

    Raises:
        ValueError: If a setting is not valid.
    """

    end_weights: Float[Tensor, "2 size"]

    def __init__(self, ends: list[str], statistics_samples: int = 1000, **settings: Any) -> None:
        super().__init__(**settings)
        self.save_hyperparameters("ends", "statistics_samples", logger=False)
        end_files(ends)
        if statistics_samples < 1:
            raise ValueError(f"`model.statistics_samples` (={statistics_samples}) must be at least 1")
        self.statistics_samples = statistics_samples
        self.end_names = list(ends)
        size = sum(parameter.numel() for parameter in self.network.parameters())
        self.register_buffer("end_weights", torch.zeros(2, size))
        # Every rank reads them itself; otherwise they would be sent in every step.
        self._ddp_params_and_buffers_to_ignore = ["end_weights"]
        self.has_ends = False
        self.point_decay = 0.0
        self._weights: dict[str, Tensor] | None = None

    def load_ends(self) -> None:
        """Read the weights of both ends, and put the bend half-way between them.

        Raises:
            FileNotFoundError: If there is no such checkpoint.
            ValueError: If they do not fit each other or this module; the message names the setting.
        """
        first, second = read_ends(self.end_names, CellClassifier.setting_names())
        if first.genotype != str(self.genotype):
            raise ValueError(
                f"`{KEY}`: {first.path} holds the genotype {first.genotype}, but `model.genotype` is"
                f" {self.genotype}"
            )
        for name in SIZES:
            if first.settings.get(name, self.hparams.get(name)) != self.hparams.get(name):
                raise ValueError(
                    f"`model.{name}` (={self.hparams.get(name)}) contradicts {first.path}, an end of the"
                    f" curve, which has {first.settings[name]}: leave it out"
                )
        parameters = dict(self.network.named_parameters())
        start, end = first.named(parameters), second.named(parameters)
        check_different(start, end, f"{first.path} and {second.path}")
        with torch.no_grad():
            self.end_weights.copy_(torch.stack([flat_weights(start), flat_weights(end)]))
            for name, values in line_point(start, end, MIDDLE).items():
                parameters[name].copy_(values)
        self.has_ends = True

    def weights_at(self, position: float, *, straight: bool = False) -> dict[str, Tensor]:
        """The parameters of the network at a position t of the curve, or of the straight line, by name.

        Those of the curve are differentiable in the network's own parameters, which are the bend.

        Raises:
            ValueError: If t is not from 0 to 1, or the ends are not known yet.
        """
        start, end = self.ends()
        if straight:
            return line_point(start, end, position)
        return curve_point(start, dict(self.network.named_parameters()), end, position)

    def ends(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The parameters of A and B by name; a ValueError if they are not known yet."""
        if not self.has_ends:
            raise ValueError(f"the weights of the ends are not read yet: `load_ends` reads `{KEY}`")
        like: dict[str, Tensor] = dict(self.network.named_parameters())
        start, end = (named_weights(row, like) for row in self.end_weights)
        return start, end

    def forward(self, inputs: Float[Tensor, "batch channels height width"]) -> Any:
        """Logits at the point that is trained or evaluated, otherwise at the middle of the curve."""
        weights = self.weights_at(MIDDLE) if self._weights is None else self._weights
        return functional_call(self.network, weights, (inputs,))

    def configure_callbacks(self) -> list[Callback]:
        """Those of :class:`CellClassifier`, and a :class:`~nas_lightning.callbacks.ModeConnectivity`."""
        own = super().configure_callbacks()
        present: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        if self.trainer.state.fn == "fit" and not any(isinstance(c, ModeConnectivity) for c in present):
            own.append(ModeConnectivity())
        return own

    def setup(self, stage: str) -> None:
        """Refuse callbacks that measure one network."""
        super().setup(stage)
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Analysis) and not isinstance(callback, ModeConnectivity):
                raise ValueError(
                    f"`trainer.callbacks`: {type(callback).__name__} measures one network, but a curve"
                    f" between two is trained (`{KEY}`): leave it out"
                )

    def on_fit_start(self) -> None:
        """Read the ends, unless a checkpoint of the curve has brought them."""
        super().on_fit_start()
        if not self.has_ends:
            self.load_ends()

    def on_train_start(self) -> None:
        """Train the plain network: what is fused has its own weights, not those of a point."""
        rank_zero_info("speed: reference; the plain network, at the weights of a point of the curve")

    def training_step(self, batch: Any, batch_index: int) -> Tensor:
        """The loss of a batch at one point of the curve, with the decay of the point's weights."""
        self._weights = self.weights_at(self.drawn_position(batch_index))
        try:
            loss = super().training_step(batch, batch_index)
            if not self.point_decay:
                return loss
            live = [name for name, values in self.network.named_parameters() if values.requires_grad]
            squares = torch.stack([self._weights[name].square().sum() for name in live]).sum()
            return loss + self.point_decay / 2 * squares
        finally:
            self._weights = None

    def drawn_position(self, batch_index: int) -> float:
        """The t of a batch of this epoch on this rank, from (seed, epoch, batch, rank)."""
        entropy = (run_seed() or 0, self.trainer.current_epoch, batch_index, self.trainer.global_rank)
        # One word more than the seeds of drop path have, which are drawn from the same numbers.
        return float(np.random.default_rng((*entropy, 1)).random())

    def make_optimizer(self) -> Optimizer:
        """The optimiser over the bend, without its weight decay, which acts on the point of each step."""
        optimizer = super().make_optimizer()
        self.point_decay = float(optimizer.param_groups[0].get("weight_decay", 0.0))
        for group in optimizer.param_groups:
            if "weight_decay" in group:
                group["weight_decay"] = 0.0
        return optimizer

    def on_validation_start(self) -> None:
        """Evaluate the middle of the curve, with running statistics estimated from training images."""
        super().on_validation_start()
        self._weights = self._evaluated_at(MIDDLE)

    def on_validation_end(self) -> None:
        """Go on with the points of the training."""
        self._weights = None

    def on_test_start(self) -> None:
        """Evaluate the middle of the curve."""
        super().on_test_start()
        self._weights = self._evaluated_at(MIDDLE)

    def on_test_end(self) -> None:
        """Let go of the middle of the curve."""
        self._weights = None

    def _evaluated_at(self, position: float) -> dict[str, Tensor]:
        """Parameters at a position, and the running statistics that belong to them."""
        trainer = self.trainer
        size = check_data(trainer, "train", None)
        samples = self.statistics_samples if size is None else min(self.statistics_samples, size)
        with torch.inference_mode(False), torch.no_grad():
            weights = self.weights_at(position)
            batches = read_batches(
                trainer,
                "train",
                max_samples=samples,
                sample_seed=0,
                batch_size=250,
                shuffled=False,
                device=self.device,
                dtype=self.end_weights.dtype,
            )
            with at_weights(self.network) as move_to:
                move_to(weights)
                estimate_running_statistics(self.network, batches)
                statistics = {name: values.clone() for name, values in self.network.named_buffers()}
        return weights | statistics

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the ends from the checkpoint, too."""
        super().on_load_checkpoint(checkpoint)
        self.has_ends = True
