"""Statistics of convergence: how fast and how steadily one training converges.

The paper shows convergence as curves (figures 3, 4 and 13 to 20) and names no number. These numbers stand in
its place. All work on the curves of one run, one value an epoch; value i (from 0) was measured after epoch
i + 1 of E. Losses are mean cross entropies in nat, accuracies fractions.

Not a number and infinity are results: a loss that is not a number never reaches a threshold, and a mean that
holds one is not a number itself. Nothing is filled in, but for the area that is cut at chance level: there an
evaluated loss that is not a number counts as chance level, as infinity does. A diverged run would else vanish
from the statistic by which runs are compared. Epochs without an evaluation are another matter: they
are left out, see :func:`convergence_statistics`.
"""

from __future__ import annotations

import math
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike

ACCURACY_THRESHOLDS = (0.5, 0.8, 0.9, 0.95)
"""Test accuracies, the time to which is measured."""

LOSS_THRESHOLDS = (1.0, 0.5, 0.2)
"""Test losses in nat, the time to which is measured."""

CHANCE_FACTOR = 1.5
"""A final accuracy of at most this many times chance level counts as divergence."""

# Metrics are computed in float32: 342 of 360 images are 0.95 and come as 0.94999999.
_ROUNDING = 1e-6

Statistics: TypeAlias = dict[str, float | bool]


@runtime_checkable
class Curves(Protocol):
    """Anything that gives a curve by its name: a mapping of arrays or a data frame."""

    def __getitem__(self, name: str, /) -> Any:
        """The curve."""


def epochs_to(values: ArrayLike, threshold: float | int, *, rising: bool) -> float:
    """Number of epochs, from 1, after which a curve has reached a threshold for the first time.

    T = min {e : v_e >= threshold} for a rising curve (accuracy), <= for a falling one (loss). The curve may
    cross again later; :func:`oscillation` says how unsteady it is. What differs from the threshold by float32
    rounding only, one part in a million, has reached it; values that are not a number reach nothing.

    NaN if the threshold was never reached, not zero and not E + 1: such a run has no such time. To compare
    runs of which some never get there, compare ranks with those runs last.
    """
    curve = _curve(values)
    slack = _ROUNDING * abs(threshold)
    reached = np.flatnonzero(curve >= threshold - slack if rising else curve <= threshold + slack)
    return float(reached[0] + 1) if reached.size else math.nan


def area_under(values: ArrayLike, ceiling: float | int = math.inf) -> float:
    """Area under a curve over the training, divided by its length.

    A = (1/E) sum_e min(v_e, ceiling): each value stands for the epoch that it ends. The trapezoid rule would
    start at the end of the first epoch and give it and the last one half their weight; here all epochs weigh
    the same, one epoch has an area too, and the units stay those of the curve. For v_e = a + b e it is a + b
    (E + 1) / 2.

    With batch norm, test losses of the first epochs can be many times ln K, because running statistics lag
    behind the weights, and would decide the area alone; ln K, the loss of a network that knows nothing, is a
    ceiling against that. Values that are not a number make the area NaN, and so does an empty curve.
    """
    curve = _curve(values)
    with np.errstate(invalid="ignore"):
        return float(np.minimum(curve, ceiling).mean()) if curve.size else math.nan


def oscillation(values: ArrayLike) -> float:
    """Size of the oscillations in the second half of a training, in the units of the curve.

    s = sqrt(mean_e (v_(e+1) - 2 v_e + v_(e-1))^2 / 6) over the last ceil(E/2) epochs, at least three. The
    second difference removes the trend: s is zero for a straight line, and a slow one hardly counts. The
    second difference of white noise of standard deviation s has variance (1 + 4 + 1) s^2, so s is the noise's
    standard deviation; for a zigzag of +-a it is a sqrt(8/3). The first half is left out, since there the
    curve itself bends and test losses can explode.

    NaN for fewer than three epochs, and where a value of the second half is not finite.
    """
    curve = _curve(values)
    if curve.size < 3:
        return math.nan
    half = curve[-max(3, math.ceil(curve.size / 2)) :]
    if not np.isfinite(half).all():
        return math.nan
    return float(np.sqrt(np.mean(np.diff(half, n=2) ** 2) / 6))


def has_diverged(
    final_loss: float | int | None,
    final_train_loss: float | int | None,
    final_accuracy: float | int,
    num_classes: int,
) -> bool:
    """Whether a training ended without having learnt anything, as C3 in figure 4 at learning rate 0.25.

    True if, after the last epoch, the test or the training loss is not finite, or the training loss is at or
    above ln K (a network that gives every class the same probability), or the test accuracy is at or below
    1.5/K or not a number. The training loss has no lag of batch-norm statistics, so it must be below ln K for
    a network that learns; the accuracy catches networks that learn the frequencies of the classes only, and
    those whose test behaviour is broken. 1.5 and not 1: K = 10 and 10,000 test images give chance a standard
    deviation of 0.003, and a broken network often tells one or two classes apart. The test loss itself has no
    bound: an overconfident network can be above ln K and still classify well. A loss that was not recorded
    (None) decides nothing.
    """
    chance_loss = _chance_loss(num_classes)
    if not all(math.isfinite(loss) for loss in (final_loss, final_train_loss) if loss is not None):
        return True
    has_not_learnt = final_train_loss is not None and final_train_loss >= chance_loss
    return has_not_learnt or not final_accuracy > CHANCE_FACTOR / num_classes


def convergence_statistics(
    curves: Curves, num_classes: int | None, steps_per_epoch: int | None
) -> Statistics:
    """All statistics of one run.

    An epoch whose accuracy is NaN was not evaluated (``check_val_every_n_epoch``): the network's outputs may
    be NaN, but then the accuracy is a number and the loss is not. Such epochs keep their number and are left
    out of means, oscillations and final values.

    Args:
        curves: ``loss``, ``accuracy`` (of the evaluation split), ``train_loss``, each [epochs], of all
            epochs from the first to the last. Losses that were not recorded are None.
        num_classes: Number of classes K; None where unknown.
        steps_per_epoch: Optimiser steps an epoch; None where unknown.

    Returns:
        ``epochs_to_accuracy_T`` for :data:`ACCURACY_THRESHOLDS`, ``epochs_to_loss_T`` for
        :data:`LOSS_THRESHOLDS`, and ``steps_to_...`` of both: the epochs times the steps of one, known to one
        epoch; ``area_under_loss`` and ``area_under_loss_clipped`` (at ln K, as which NaN in an evaluated
        epoch counts, too) in nat; ``mean_error``, the mean of 1 - accuracy; ``oscillation_loss`` in nat,
        ``oscillation_accuracy`` as a fraction; ``diverged``. Numbers are NaN where there is none, and all but
        ``diverged`` are if no epoch was evaluated; ``diverged`` then follows from the training loss. It is
        NaN without K.

    Raises:
        ValueError: If the curves have different lengths or none, there are fewer than two classes, or
            ``steps_per_epoch`` is not positive.
    """
    accuracy = _curve(curves["accuracy"])
    has_loss, has_train_loss = (curves[name] is not None for name in ("loss", "train_loss"))
    unknown = np.full(accuracy.size, math.nan)
    loss = _curve(curves["loss"]) if has_loss else unknown
    train_loss = _curve(curves["train_loss"]) if has_train_loss else unknown
    if not loss.size or not loss.size == accuracy.size == train_loss.size:
        raise ValueError(
            f"curves of {loss.size} (`loss`), {accuracy.size} (`accuracy`) and {train_loss.size}"
            " (`train_loss`) epochs: the same number, at least 1, is needed"
        )
    if steps_per_epoch is not None and steps_per_epoch < 1:
        raise ValueError(f"`steps_per_epoch` (={steps_per_epoch}) must be at least 1")
    statistics: Statistics = {}
    for name, curve, thresholds, rising in (
        ("accuracy", accuracy, ACCURACY_THRESHOLDS, True),
        ("loss", loss, LOSS_THRESHOLDS, False),
    ):
        for unit, steps in (("epochs", 1.0), ("steps", steps_per_epoch or math.nan)):
            for threshold in thresholds:
                epochs = epochs_to(curve, threshold, rising=rising)
                statistics[f"{unit}_to_{name}_{threshold:g}"] = epochs * steps
    evaluated = ~np.isnan(accuracy)
    test_loss, test_accuracy = loss[evaluated], accuracy[evaluated]
    statistics["area_under_loss"] = area_under(test_loss)
    statistics["area_under_loss_clipped"] = (
        area_under(np.where(np.isnan(test_loss), math.inf, test_loss), _chance_loss(num_classes))
        if has_loss and num_classes is not None
        else math.nan
    )
    statistics["mean_error"] = area_under(1 - test_accuracy)
    statistics["oscillation_loss"] = oscillation(test_loss)
    statistics["oscillation_accuracy"] = oscillation(test_accuracy)
    last_loss, last_accuracy = None, 1.0
    if evaluated.any():
        last_loss, last_accuracy = float(test_loss[-1]) if has_loss else None, float(test_accuracy[-1])
    last_train_loss = float(train_loss[-1]) if has_train_loss else None
    statistics["diverged"] = (
        math.nan
        if num_classes is None
        else has_diverged(last_loss, last_train_loss, last_accuracy, num_classes)
    )
    return statistics


def _curve(values: ArrayLike) -> np.ndarray:
    curve = np.asarray(values, dtype=np.float64)
    if curve.ndim != 1:
        raise ValueError(f"a curve has one dimension, [epochs]: this array has the shape {curve.shape}")
    return curve


def _chance_loss(num_classes: int) -> float:
    """Cross entropy of equal probabilities, ln K."""
    if num_classes < 2:
        raise ValueError(f"`num_classes` (={num_classes}) must be at least 2")
    return math.log(num_classes)
