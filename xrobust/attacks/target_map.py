"""The attack that makes the map look like another one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from xrobust.attacks.attribution import AttributionAttack, Goal, relevance_shares
from xrobust.attacks.standing import require_at_least
from xrobust.errors import UserError

MapTransform = Callable[[Tensor], Tensor]
"""The clean maps → the maps to reach, (N, C, H, W); their scale does not matter."""


@dataclass(frozen=True)
class HalfTurn:
    """The image's own map, turned by 180°: as sparse as before, but elsewhere."""

    def __call__(self, maps: Tensor) -> Tensor:
        return maps.flip((-2, -1))


@dataclass(frozen=True, eq=False)
class FixedMap:
    """The same map for all images, (C, H, W), or one for each, (N, C, H, W).

    One for each is for an attack of one restart on no more images than its `batch_size`: parts of a batch, and several
    runs of an image, ask for other numbers of maps.
    """

    maps: Tensor

    def __call__(self, maps: Tensor) -> Tensor:
        try:
            return self.maps.to(maps.device, maps.dtype).expand_as(maps)
        except RuntimeError:
            raise UserError(
                f"a target map of shape {tuple(self.maps.shape)} does not fit maps {tuple(maps.shape)}"
            ) from None


@dataclass(frozen=True, kw_only=True)
class TargetMapAttack(AttributionAttack):
    """min_z ‖s(z) − t‖² / ‖s(x) − t‖² + γ·‖p(z) − p(x)‖² (Dombrowski et al. 2019).

    s = m / Σm are the pixels' shares of the relevance m = Σ_c |a_c|, t those of the target, p = softmax f. The
    first term starts at 1, whatever the size of the image, and is 0 at the target.

    Args:
        target: what the map shall look like.
        output_weight: γ ≥ 0, of what the prediction's probabilities may change.
    """

    target: MapTransform = field(default_factory=HalfTurn)
    output_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, output_weight=0.0)

    def goal(self, maps: Tensor, logits: Tensor) -> Goal:
        target, clean = relevance_shares(self.target(maps)), logits.softmax(1)
        way = (relevance_shares(maps) - target).square().sum(1)
        way = way.where(way > 0, 1)  # a map that is its own target

        def loss(maps: Tensor, logits: Tensor) -> Tensor:
            distance = (relevance_shares(maps) - target).square().sum(1) / way
            return distance + self.output_weight * (logits.softmax(1) - clean).square().sum(1)

        return Goal(loss, loss)
