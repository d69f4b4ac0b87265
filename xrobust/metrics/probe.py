"""What an explanation metric sees: a batch of images, and everything about them that metrics share."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xrobust.attacks import Attack
from xrobust.attacks.attribution import require_attack_on_maps
from xrobust.attributions import Attribution, Gradient
from xrobust.attributions.base import slices
from xrobust.errors import UserError
from xrobust.frame import logits_of, untouched
from xrobust.randomness import SampleStreams, mix
from xrobust.threat import ThreatModel


class _Shared:
    """Like `cached_property`, but kept where every probe of the same images finds it."""

    def __init__(self, compute: Callable[[Probe], Tensor]):
        self.compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, probe: Probe, owner: type) -> Tensor:
        if probe is None:
            return self  # type: ignore[return-value]
        if self.name not in probe.shared:
            probe.shared[self.name] = self.compute(probe)
        return probe.shared[self.name]


@dataclass(frozen=True, kw_only=True, eq=False)
class Probe:
    """N images with their model, attribution method and adversary; each derived quantity is computed once.

    All randomness is keyed by (seed, purpose, sample index): nothing here depends on the batch size, the
    order, the device or the number of processes. All results are detached and belong to all metrics: they
    are never changed in place.

    Args:
        model: images in [0, 1] → logits (N, K).
        x: (N, C, H, W) images in the threat model's box, float (computed with in float32, or float64 if so
            given).
        y: (N,) int64 labels.
        index: (N,) integers that identify the samples, whatever batch they come in.
        method: the attribution under test; it explains the logit of the label.
        threat: the ball of the random neighbours.
        attack: makes the adversarial examples, in the same threat model; none if no metric asks for them.
        map_attack: an attack on the map, in the same threat model; its field `attribution` is replaced by the
            method under test. None if no metric asks for attacked maps.
        mask: (N, H, W) bool, the pixels that are known to matter; none if no metric asks for them.
        pool: images (M, C, H, W) and labels (M,), the same in each batch and process, from which a metric may draw
            company for a sample; none if no metric asks for them.
        seed: of everything random.
        batch_size: how many images at most go through the model at once (the method has its own).
        shared: the cache of what does not depend on the method; `using` hands it on.
    """

    model: nn.Module
    x: Tensor
    y: Tensor
    index: Tensor
    method: Attribution
    threat: ThreatModel
    attack: Attack | None = None
    map_attack: Attack | None = None
    mask: Tensor | None = None
    pool: tuple[Tensor, Tensor] | None = None
    seed: int = 0
    batch_size: int = 256
    shared: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.x.dim() != 4 or self.y.shape != (len(self.x),) or self.index.shape != (len(self.x),):
            raise UserError(
                "a probe needs images (N, C, H, W) with N labels and N indices, "
                f"got {tuple(self.x.shape)}, {tuple(self.y.shape)}, {tuple(self.index.shape)}"
            )
        if self.batch_size < 1:
            raise UserError(f"Probe.batch_size must be at least 1, got {self.batch_size}")
        for attack in (self.attack, self.map_attack):
            if attack is not None and attack.threat != self.threat:
                raise UserError(f"the probe compares at equal ε: its attack has {attack.threat}, it has {self.threat}")
        require_attack_on_maps(self.map_attack, "map_attack")
        if self.mask is not None and self.mask.shape != (len(self.x), *self.x.shape[-2:]):
            raise UserError(f"a mask must be (N, H, W) for images {tuple(self.x.shape)}, got {tuple(self.mask.shape)}")
        if self.pool is not None and (
            self.pool[0].shape[1:] != self.x.shape[1:] or self.pool[1].shape != (len(self.pool[0]),)
        ):
            raise UserError(
                f"a pool must have images {tuple(self.x.shape[1:])} and a label for each, "
                f"got {tuple(self.pool[0].shape)} and {tuple(self.pool[1].shape)}"
            )
        x = self.x.detach()
        object.__setattr__(self, "x", x if x.dtype == torch.float64 else x.float())

    def __len__(self) -> int:
        return len(self.x)

    def parts_there(self) -> set[str]:
        """The names of the optional parts that are there, of "attack", "map_attack", "mask", "pool"."""
        return {name for name in ("attack", "map_attack", "mask", "pool") if getattr(self, name) is not None}

    def using(self, method: Attribution) -> Probe:
        """The same images under another attribution method; all that does not depend on it stays shared."""
        return replace(self, method=method)

    def streams(self, purpose: str) -> SampleStreams:
        """Fresh random streams, one for each sample, keyed by (seed, purpose, sample index)."""
        return SampleStreams(mix(self.seed, zlib.crc32(purpose.encode())), self.index.tolist())

    # What belongs to the images, whatever the attribution.

    @_Shared
    def logits(self) -> Tensor:
        """f(x): (N, K)."""
        return self.logits_at(self.x)

    @property
    def prediction(self) -> Tensor:
        """argmax_k f_k(x): (N,)."""
        return self.logits.argmax(1)

    @_Shared
    def gradient(self) -> Tensor:
        """∇ₓ f_y(x), the gradient of the label's logit: (N, C, H, W)."""
        return Gradient(batch_size=self.batch_size)(self.model, self.x, self.y)

    @_Shared
    def loss_gradient(self) -> Tensor:
        """∇ₓ CE(f(x), y), each sample's own: (N, C, H, W)."""

        def loss(logits: Tensor) -> Tensor:
            # Cloned where autograd is on: it cannot record labels that were made in inference mode.
            return F.cross_entropy(logits, self.y.clone(), reduction="none")

        return Gradient(batch_size=self.batch_size)(self.model, self.x, loss)

    @_Shared
    def adversarial(self) -> Tensor:
        """The attack's examples against the labels: (N, C, H, W)."""
        attack, streams = self.attack, self.streams("attack")
        if attack is None:
            raise UserError("a metric asks for adversarial examples, but the probe has no attack")
        return self.in_batches(lambda rows: attack(self.model, self.x[rows], self.y[rows], generator=streams[rows]))

    @_Shared
    def neighbour(self) -> Tensor:
        """A random point at equal ε, drawn uniformly from the threat model's ball: (N, C, H, W).

        In d dimensions its distance is d/(d+1)·ε on average before it is projected onto the box:
        practically ε.
        """
        return self.threat.random_start(self.x, self.streams("neighbour"))

    # What belongs to the attribution method.

    @cached_property
    def map(self) -> Tensor:
        """The attribution of x for its label, signed: (N, C, H, W)."""
        return self.attribute(self.x)

    @cached_property
    def adversarial_map(self) -> Tensor:
        """The attribution of the adversarial examples, still for the label: (N, C, H, W)."""
        return self.attribute(self.adversarial)

    @cached_property
    def attacked(self) -> Tensor:
        """The images after the attribution attack on the method under test: (N, C, H, W)."""
        if self.map_attack is None:
            raise UserError("a metric asks for attacked maps, but the probe has no map_attack")
        attack: Any = self.map_attack
        attack, streams = replace(attack, attribution=self.method), self.streams("map_attack")
        return self.in_batches(lambda rows: attack(self.model, self.x[rows], self.y[rows], generator=streams[rows]))

    @cached_property
    def attacked_map(self) -> Tensor:
        """The attribution of the images after the attribution attack, still for the label: (N, C, H, W)."""
        return self.attribute(self.attacked)

    @cached_property
    def neighbour_map(self) -> Tensor:
        """The attribution of the random neighbours for the label: (N, C, H, W)."""
        return self.attribute(self.neighbour)

    # What a metric may ask at points of its own.

    def attribute(self, points: Tensor) -> Tensor:
        """The attribution at other points, one for each sample, for the labels: (N, C, H, W).

        A random method draws the same noise for the same sample each time, so that maps differ by the
        points only.
        """
        return self.method(self.model, points, self.y, generator=self.streams("attribution"))

    def logits_at(self, points: Tensor) -> Tensor:
        """f at other points, without gradients: (M, C, H, W) → (M, K)."""
        with untouched(self.model, points), torch.no_grad():
            return torch.cat([logits_of(self.model, points[rows]) for rows in slices(len(points), self.batch_size)])

    def in_batches(self, compute: Callable[[slice], Tensor]) -> Tensor:
        """compute(rows) for consecutive internal batches of the samples, put together again."""
        return torch.cat([compute(rows) for rows in slices(len(self), self.batch_size)])


def magnitude(attribution: Tensor) -> Tensor:
    """Σ_c |a_c|, the relevance of each pixel: (N, C, H, W) → (N, H, W)."""
    return attribution.abs().sum(1)
