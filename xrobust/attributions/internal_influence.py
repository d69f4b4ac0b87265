"""Influence-directed explanations."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from xrobust.attributions.base import Attribution, Score
from xrobust.attributions.distributions import Distribution, Line, Point, mean_gradient
from xrobust.attributions.units import UnitOffsets, UnitOutputs
from xrobust.errors import UserError, at_least
from xrobust.frame import logits_of, untouched
from xrobust.randomness import Generator, SampleStreams


def unit_influence(
    model: nn.Module,
    layer: str,
    x: Tensor,
    score: Score,
    *,
    distribution: Distribution | None = None,
    batch_size: int = 256,
    generator: Generator | None = None,
) -> Tensor:
    """χ_j = E_{z ~ D(x)} Σ_positions ∂s(f(z)) / ∂h_j(z): how much each unit of a layer speaks for the score.

    Args:
        model: images → logits (N, K), asked in eval mode.
        layer: the dotted path of the layer whose output is h, see `UnitOutputs`.
        x: (N, C, H, W).
        score: (N, K) logits → (N,), such as those in `attributions.scores`.
        distribution: D, the distribution of interest; none means the image itself.
        batch_size: how many images at most go through the model at once.
        generator: the source of the distribution's draws; none means streams keyed by the position in the batch.

    Returns:
        (N, units), detached.

    Raises:
        UserError: if there is no such layer, it does not run once, or its output has no units.

    Paper: Leino et al. 2018, Influence-directed explanations for deep convolutional networks (internal influence).
    """
    distribution = Point() if distribution is None else distribution
    generator = SampleStreams(0, range(len(x))) if generator is None else generator
    x = x.detach()
    with untouched(model, x):
        raised = UnitOffsets(model, layer, x.shape[1:])
        units = _unit_count(UnitOutputs(model, layer), x)
        points = ((UnitOffsets.pack(z, units), weight) for z, weight in distribution.points(x, generator))
        return mean_gradient(raised, points, score, count=len(x), batch_size=batch_size)[:, -units:]


@dataclass(frozen=True, kw_only=True)
class InternalInfluence(Attribution):
    """a = E_{z ~ D(x)} ∇_z q(z), for a quantity of interest q and a distribution of interest D (Leino et al. 2018).

    The quantity is the score, q = s(f(z)), or what a unit of a layer puts out, q = Σ_positions h_j(z), so that the
    map explains the unit. The unit is either given or the one of each image that influences the score most:
    j = argmax_j χ_j(x), see `unit_influence`. A unit that is given is explained whatever the target.

    Args:
        layer: the dotted path of the layer, see `UnitOutputs`; none means that q is the score.
        channel: j ≥ 0; none means the most influential unit of each image.
        distribution: D, one of those in `attributions.distributions`.
        seed: of the distribution's draws, when the call gives no generator.

    Raises:
        UserError: when called, if the model has no such layer or unit.
    """

    demands: ClassVar[str] = "a gradient, and the layer if one is named"

    layer: str | None = None
    channel: int | None = None
    distribution: Distribution = field(default_factory=Line)
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channel is not None:
            at_least("InternalInfluence", 0, channel=self.channel)
            if self.layer is None:
                raise UserError(f"InternalInfluence.channel={self.channel} needs the layer that it belongs to")

    def attribute(
        self, model: nn.Module, x: Tensor, score: Score, create_graph: bool, generator: Generator | None
    ) -> Tensor:
        assert generator is not None
        points = self.distribution.points(x, generator)
        explain = partial(mean_gradient, count=len(x), batch_size=self.batch_size, create_graph=create_graph)
        if self.layer is None:
            return explain(model, points, score)
        outputs = UnitOutputs(model, self.layer)
        unit = self._unit(model, outputs, self.layer, x, score, generator)[:, None]
        return explain(outputs, points, lambda units: units.gather(1, unit)[:, 0])

    def _unit(
        self, model: nn.Module, outputs: UnitOutputs, layer: str, x: Tensor, score: Score, generator: Generator
    ) -> Tensor:
        """The unit to explain for each image: (N,)."""
        if self.channel is None:
            distribution, size = self.distribution, self.batch_size
            influence = unit_influence(
                model, layer, x, score, distribution=distribution, batch_size=size, generator=generator
            )
            return influence.argmax(1)
        units = _unit_count(outputs, x)
        if self.channel >= units:
            raise UserError(f"InternalInfluence.channel must be below {units} in layer {layer!r}, got {self.channel}")
        return torch.full((len(x),), self.channel, device=x.device)

    def default_generator(self, count: int) -> Generator:
        return SampleStreams(self.seed, range(count))


def _unit_count(outputs: UnitOutputs, x: Tensor) -> int:
    with torch.no_grad():
        return logits_of(outputs, x[:1]).shape[1]
