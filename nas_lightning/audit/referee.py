"""What a training says about a cell, in the sentences of a careful referee.

First the question and its answer; then the effect with its interval, the second look at convergence, what the
audit could have found, what a search would have kept, what was measured at convergence, what is missing, and
what all of this does not show.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from nas_lightning.report.uncorrected import ALPHA
from nas_lightning.report.words import counted, listed, p_value_text, signed

if TYPE_CHECKING:
    from nas_lightning.audit.ranks import Quantity, Rank
    from nas_lightning.audit.training import Training

_NAMED = 3


def sentences(training: Training) -> Iterator[str]:
    """The sentences, the verdict first."""
    yield _verdict(training)
    yield _effect(training.accuracy)
    yield from _second_look(training)
    yield _power(training)
    yield from _search(training)
    yield from _at_convergence(training)
    yield from _reservations(training)
    yield _scope(training)


def _verdict(training: Training) -> str:
    rank = training.accuracy.rank
    count = rank.of - 1
    beaten = "None" if rank.rank == 1 else "All" if rank.rank == rank.of else f"{rank.rank - 1}"
    answer = (
        f"Would a random cell with the same operations and size have done as well? {beaten} of the {count} "
        f"that were trained did: in final accuracy this cell has {_place(rank)}."
    )
    if rank.p_value <= ALPHA:
        return (
            f"{answer} A cell that was drawn at random like its controls would have such a rank, or a better "
            f"one, with a probability of at most {p_value_text(rank.p_value)}."
        )
    if 1 / rank.of > ALPHA:
        return (
            f"{answer} With {counted(count, 'control')} no p-value can be below {1 / rank.of:.2g}: they are "
            "too few to tell it from a random cell."
        )
    if rank.p_value_of_the_opposite <= ALPHA:
        opposite = p_value_text(rank.p_value_of_the_opposite)
        return (
            f"{answer} It is rather worse: a cell that was drawn at random like its controls would have "
            f"such a rank, or a worse one, with a probability of at most {opposite}."
        )
    return (
        f"{answer} This training does not tell it from a random cell; that is absence of evidence, not "
        "evidence of absence."
    )


def _effect(accuracy: Quantity) -> str:
    found = accuracy.difference
    if not math.isfinite(found.value):
        return "Some accuracies are not finite: the difference from its controls has no value."
    text = (
        f"Its final accuracy is {accuracy.own_mean:.2f} %, that of its controls {accuracy.controls_mean:.2f} "
        f"% on average: a difference of {signed(found.value)} points"
    )
    if not math.isfinite(found.low):
        return f"{text}, without an interval."
    random = (
        "its seeds are random, and the controls a sample of all such cells"
        if accuracy.estimate.repeats
        else "one seed does not tell the spread between seeds: that between controls stands in, and the "
        "interval is rather too wide"
    )
    text += f" (95 % interval {signed(found.low)} to {signed(found.high)}; {random})."
    return f"{text} {_beaten(accuracy.rank)}"


def _beaten(rank: Rank) -> str:
    worse = rank.of - rank.rank
    # Outwards: 100 % would be all of them.
    low, high = math.floor(100 * rank.low), math.ceil(100 * rank.high)
    return (
        f"It beats {worse} of its {rank.of - 1} controls; of all such random cells that is {low} to {high} % "
        f"(95 % interval{', ties as halves' if rank.tied else ''})."
    )


def _place(rank: Rank) -> str:
    ties = f", {counted(rank.tied, 'tie')} counted against it" if rank.tied else ""
    return f"rank {rank.rank} of {rank.of} (p {p_value_text(rank.p_value, sign=True)}{ties})"


def _second_look(training: Training) -> Iterator[str]:
    for quantity in training.quantities:
        if quantity.measure.name != "convergence":
            continue
        rank, unit = quantity.rank, quantity.measure.unit
        digits = 2 if unit == "%" else 3
        own, others = (f"{mean:.{digits}f} {unit}" for mean in (quantity.own_mean, quantity.controls_mean))
        yield (
            f"A second look, not corrected for being the second: in the {quantity.measure.label} it has "
            f"{_place(rank)}, {own} against {others} on average."
        )


def _power(training: Training) -> str:
    accuracy = training.accuracy
    controls, seeds = len(accuracy.controls), len(accuracy.own)
    size = f"{counted(controls, 'control')} and {counted(seeds, 'seed')}"
    if not math.isfinite(training.detectable):
        if not accuracy.estimate.between > 0:
            return "All controls have one accuracy: this training cannot tell cells apart."
        return f"With {size} no difference, however large, can be found at {ALPHA:g}."
    spread = f"between controls {accuracy.controls_sd:.2f} points"
    if accuracy.estimate.repeats:
        spread += f", between seeds {accuracy.seed_sd:.2f}"
    else:
        spread += ", seeds included; their part is taken as in published trainings"
    return (
        f"With {size} an audit finds a cell that is truly {training.detectable:.2f} points better than the "
        f"mean of its controls in four of five cases (standard deviations {spread}); of smaller advantages "
        "it mostly says nothing."
    )


def _search(training: Training) -> Iterator[str]:
    picks, epochs = training.picks, training.epochs
    count = len(training.accuracy.controls) + 1
    text = f"A search that trained these {count} cells alike and kept the most accurate so far"
    if picks.picked_from is not None:
        when = "after any epoch" if picks.picked_from == 1 else f"from epoch {picks.picked_from} on"
        yield f"{text} would keep this cell {when}."
    else:
        last = picks.picked[-1]
        kept = "another one" if picks.rank_by_epoch[-1] > len(last) else "another one as well as this one"
        yield f"{text} would keep {kept} at the end."
    if epochs > 1 and math.isfinite(picks.regret[0]):
        yield (
            f"Stopped after the first epoch of {epochs}, it would lose {signed(picks.regret[0])} points of "
            "accuracy at the end."
        )


def _at_convergence(training: Training) -> Iterator[str]:
    shown = [quantity for quantity in training.quantities if math.isfinite(quantity.p_adjusted)]
    if not shown:
        return
    parts = [
        f"{one.measure.label} rank {one.rank.rank} of {one.rank.of} (p "
        f"{p_value_text(one.rank.p_value, sign=True)}, after Holm's correction "
        f"{p_value_text(one.p_adjusted)})"
        for one in shown
    ]
    yield f"At convergence, rank 1 being the smoothest or the least noisy: {listed(parts)}."


def _reservations(training: Training) -> Iterator[str]:
    if number := len(training.diverged):
        names = [*training.diverged[:_NAMED], *([f"{number - _NAMED} more"] if number > _NAMED else [])]
        yield (
            f"{counted(number, 'training')} learnt nothing and {'counts' if number == 1 else 'count'} with "
            f"what {'it' if number == 1 else 'they'} reached: {listed(names)}."
        )
    if number := len(training.ended):
        yield (
            f"{counted(number, 'training')} ended early and {'counts' if number == 1 else 'count'} with the "
            "accuracy of the last epoch."
        )
    lacking = training.planned - training.finished
    if lacking:
        verb = "is" if lacking == 1 else "are"
        yield (
            f"{lacking} of {counted(training.planned, 'training')} {verb} missing; the others are compared, "
            "each cell by the seeds it has. The p-values are exact only if what is missing does not depend "
            "on which cell is audited."
        )
    if gone := training.asked - training.controls:
        verb = "has" if gone == 1 else "have"
        yield f"{gone} of {training.asked} controls {verb} no finished training."


def _scope(training: Training) -> str:
    channels, cells = (training.settings.get(f"model.{name}") for name in ("init_channels", "num_cells"))
    network = f", {cells} cells, {channels} initial channels" if channels and cells else ""
    budget = f"{counted(training.epochs, 'epoch')} on {training.data}{network}"
    what = "other data, settings and operations"
    if training.budget.level == 1:
        what = "longer trainings, larger networks, other data and other operations"
    return (
        f"All of this holds for one training budget ({budget}) and says nothing about {what}. The p-values "
        "are exact if the cell was drawn like its controls; they test its wiring, not its operations, which "
        "all of them share."
    )
