"""The attacks on one batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from xrobust.attacks import Attack, Stage, WorstOf
from xrobust.attacks.standing import fresh_predictions
from xrobust.errors import UserError
from xrobust.evaluation.fixed import fixed_conditions
from xrobust.evaluation.ladder import Ladder
from xrobust.evaluation.outcome import MISCLASSIFIED, STANDING, Outcomes
from xrobust.evaluation.reason import reason
from xrobust.randomness import SampleStreams, mix

SHOWN = 10  # images that a batch keeps for the panel


class Turn(NamedTuple):
    """A member of an attack is done with a batch.

    Attributes:
        threat: the threat model, as text.
        member: the name of the attack whose turn it was.
        samples: how many samples the batch has.
        standing: how many of them the model still gets right.
    """

    threat: str
    member: str
    samples: int
    standing: int


Watch = Callable[[Turn], None]


def turns(outcomes: Outcomes, ladders: Sequence[Ladder]) -> Iterator[Turn]:
    """The turns that led to the outcomes of a batch."""
    columns = iter(outcomes.broken_by.T)
    for ladder in ladders:
        left = np.full(len(outcomes.index), True)  # by the rungs below
        for rung in ladder.rungs:
            broken_by = next(columns)
            for k, member in enumerate(ladder.members, 1):
                standing = left & ((broken_by == STANDING) | (broken_by > k))
                yield Turn(str(rung.threat), member, len(broken_by), int(standing.sum()))
            left = broken_by == STANDING


def attack_batch(
    model: nn.Module, x: Tensor, y: Tensor, index: Tensor, ladders: Sequence[Ladder], seed: int, watch: Watch
) -> Outcomes:
    """Every rung of every ladder on the samples (N, C, H, W) with labels (N,) and positions in the data set (N,).

    Ladders are independent of each other. The random streams of a sample are keyed by seed and position.

    Raises:
        UserError: if an attack cannot run on the model.
        RuntimeError: if an attack leaves its threat model.
    """
    with fixed_conditions(x.device, mix(seed, int(index[0]))):
        clean_prediction = fresh_predictions(model, x)
        climbs = []
        for ladder in ladders:
            climb = _Climb(model, x, y, index, ladder, seed, clean_prediction)
            for rung in ladder.rungs:
                climb.step(rung, watch)
            climbs.append(climb)
    shown = _choose(torch.stack([climb.own for climb in climbs]))
    members = max(len(ladder.members) for ladder in ladders)
    return Outcomes(
        index=index.numpy(),
        label=y.cpu().numpy(),
        clean_prediction=clean_prediction.cpu().numpy(),
        broken_by=_columns([column for climb in climbs for column in climb.broken_by]),
        prediction=_columns([column for climb in climbs for column in climb.prediction]),
        distance=_columns([column for climb in climbs for column in climb.distance]),
        seconds=np.array(
            [row + [0.0] * (members - len(row)) for climb in climbs for row in climb.seconds], dtype=np.float64
        ),
        shown=index[shown.cpu()].numpy(),
        images=x[shown].cpu().numpy(),
        adversarial_images=torch.stack([climb.own_examples[shown] for climb in climbs], 1).cpu().numpy(),
    )


class _Climb:
    """A batch on its way up one ladder, with a column of outcomes for each rung so far."""

    def __init__(
        self, model: nn.Module, x: Tensor, y: Tensor, index: Tensor, ladder: Ladder, seed: int, clean_prediction: Tensor
    ):
        self.model, self.x, self.y, self.index, self.ladder, self.seed = model, x, y, index, ladder, seed
        self.x_adv = x.clone()
        self.fate = torch.where(clean_prediction == y, STANDING, MISCLASSIFIED)
        self.predicted = clean_prediction.clone()
        self.broken_by: list[Tensor] = []
        self.prediction: list[Tensor] = []
        self.distance: list[Tensor] = []
        self.seconds: list[list[float]] = []
        self.own = self.fate
        self.own_examples = self.x_adv

    def step(self, rung: Attack, watch: Watch) -> None:
        """Attack the samples still standing and note what became of all."""
        rows = (self.fate == STANDING).nonzero().flatten()
        seconds = [0.0] * len(self.ladder.members)
        if len(rows) and rung.threat.radius > 0:
            fate, x_adv, predicted, seconds = self._attack(rung, rows, watch)
            self.fate[rows], self.x_adv[rows], self.predicted[rows] = fate, x_adv, predicted
        else:
            for member in self.ladder.members:
                watch(Turn(str(rung.threat), member, len(self.x), len(rows)))
        self.broken_by.append(self.fate.clone())
        self.prediction.append(self.predicted.clone())
        self.distance.append(rung.threat.distance(self.x_adv, self.x))
        self.seconds.append(seconds)
        if rung.threat == self.ladder.threat:
            self.own, self.own_examples = self.fate.clone(), self.x_adv.clone()

    def _attack(self, rung: Attack, rows: Tensor, watch: Watch) -> tuple[Tensor, Tensor, Tensor, list[float]]:
        x, y = self.x[rows], self.y[rows]
        streams = SampleStreams(self.seed, self.index[rows.cpu()].tolist())
        first = torch.full_like(y, STANDING)  # the turn after which the attack takes a sample for broken
        seconds = []
        begun = time.perf_counter()
        for k, stage in enumerate(_stages(rung, self.model, x, y, streams), 1):
            first[~stage.standing & (first == STANDING)] = k
            watch(Turn(str(rung.threat), stage.name, len(self.x), int(stage.standing.sum())))
            seconds.append(time.perf_counter() - begun)
            begun = time.perf_counter()
        if not rung.threat.contains(stage.x_adv, x).all():
            raise RuntimeError(f"{rung} returned images outside of its threat model")
        # The verdicts are those of forward passes of our own, whatever the attack believes. What was wrong in one of
        # them is broken, although a model that draws random numbers may be right the next time.
        predicted = fresh_predictions(self.model, stage.x_adv)
        fate = first.masked_fill((first == STANDING) & (predicted != y), len(seconds))
        return fate, stage.x_adv, predicted, seconds


def _stages(attack: Attack, model: nn.Module, x: Tensor, y: Tensor, streams: SampleStreams) -> Iterator[Stage]:
    """The worst examples after each member's turn."""
    try:
        if isinstance(attack, WorstOf):
            yield from islice(attack.stages(model, x, y, streams), 1, None)  # the first stage is that without attack
        else:
            x_adv = attack(model, x, y, generator=streams)
            yield Stage(type(attack).__name__, x_adv, fresh_predictions(model, x_adv) == y)
    except RuntimeError as error:
        raise UserError(f"{attack} cannot run on this model: {reason(error)}") from error


def _choose(fates: Tensor) -> Tensor:
    """Positions of the samples to show: right without an attack, and broken ones first; (ladders, N) → (k,)."""
    right = (fates != MISCLASSIFIED).all(0).nonzero().flatten()
    stand = (fates[:, right] == STANDING).sum(0)
    return right[stand.argsort(stable=True)][:SHOWN]


def _columns(columns: list[Tensor]) -> np.ndarray:
    return torch.stack(columns, 1).cpu().numpy()
