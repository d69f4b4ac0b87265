"""Threat models: which perturbations an adversary may make.

All norms are per sample: a batch of shape (N, ...) has N distances. Radii are exact fractions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from xrobust.errors import UserError, one_of
from xrobust.randomness import Generator, normal_like, uniform_like

# What float32 rounding of x + δ may add to a distance, relative to ε and absolute (pixels are in [0, 1]).
RELATIVE_TOLERANCE = 1e-6
ABSOLUTE_TOLERANCE = 1e-7


def exact_fraction(value: object, place: str) -> Fraction:
    """Read a number exactly: "8/255", "39.6/255", "0.3", 0.3 (as the decimal 3/10), 8, or a `Fraction`."""
    try:
        numerator, *rest = map(Fraction, str(value).split("/"))
        (denominator,) = rest or [Fraction(1)]
        return numerator / denominator
    except (ValueError, ZeroDivisionError):
        raise UserError(f"{place} must be a number or a fraction such as 8/255, got {value!r}") from None


def exact_radius(value: object, place: str) -> Fraction:
    """`exact_fraction` of at least 0."""
    radius = exact_fraction(value, place)
    if radius < 0:
        raise UserError(f"{place} must be at least 0, got {value}")
    return radius


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """Reshape (N,) so that it broadcasts over (N, ...)."""
    return values.view(-1, *[1] * (like.dim() - 1))


@dataclass(frozen=True)
class ThreatModel:
    """B_p(x, ε) ∩ [low, high]^d: the points within distance ε of x in the given norm that are still images.

    Args:
        norm: "linf", "l2" or "l1".
        eps: the radius ε ≥ 0, in units of the pixel range [0, 1]: a number or an exact fraction ("8/255").
        clip: the pixel range (low, high).
    """

    norm: str
    eps: Fraction | float | str
    clip: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if self.norm not in _BALLS:
            raise one_of("threat.norm", self.norm, list(_BALLS))
        eps = exact_radius(self.eps, "threat.eps")
        if len(self.clip) != 2 or not self.clip[0] < self.clip[1]:
            raise UserError(f"threat.clip must be two numbers, low < high, got {self.clip!r}")
        object.__setattr__(self, "eps", eps)
        object.__setattr__(self, "clip", (float(self.clip[0]), float(self.clip[1])))

    def require_images(self, x: Tensor) -> None:
        """Refuse images outside of the pixel range, around which the ball would be another set or empty.

        Raises:
            UserError: naming the range.
        """
        low, high = self.clip
        if x.numel() and not (x.amin() >= low and x.amax() <= high):
            found = f"values from {x.amin():.4g} to {x.amax():.4g}"
            raise UserError(f"images must lie in [{low:g}, {high:g}], as threat.clip says, got {found}")

    def __str__(self) -> str:
        return f"{self.norm} ε={self.written_eps}"

    @property
    def written_eps(self) -> str:
        """ε as people write it: "0.2" or "8/255", whichever is exact."""
        decimal = f"{self.radius:g}"
        return decimal if Fraction(decimal) == self.fraction else str(self.fraction)

    @property
    def fraction(self) -> Fraction:
        """ε, exactly."""
        return Fraction(self.eps)

    @property
    def radius(self) -> float:
        """ε, as the nearest float64."""
        return float(self.fraction)

    def with_eps(self, eps: Fraction | float | str, place: str = "threat.eps") -> ThreatModel:
        """The same norm and pixel range at another radius; an error names the place that it comes from."""
        return ThreatModel(self.norm, exact_radius(eps, place), self.clip)

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """‖x_adv − x‖_p for each sample, summed in float64: (N, ...) → (N,)."""
        return self._ball.norm((x_adv.double() - x.double()).flatten(1))

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """A nearest point to x_adv in B_p(x, ε) ∩ [low, high]^d; x itself must lie in the box.

        Linf and L1 are Euclidean projections onto the intersection (L1 by sorting the breakpoints of the dual, as
        in Croce & Hein 2021, "Mind the box"). L2 projects onto the ball and then onto the box, which keeps it in
        both since x is in the box. Float32 rounding is towards x, so that no distance exceeds ε by it.
        """
        return self._ball.project(x_adv, x, self.radius, self.clip)

    def random_start(self, x: Tensor, generator: Generator, *, in_box: bool = True) -> Tensor:
        """A point drawn uniformly from B_p(x, ε), then projected onto the box unless `in_box` is False."""
        start = x + self.radius * self._ball.uniform(x, generator).to(x.dtype)
        return self.project(start, x) if in_box else start

    def ascent(self, gradient: Tensor) -> Tensor:
        """The step of unit norm that a first-order attack takes along a gradient; zero where the gradient is zero.

        Linf: sign(g). L2: g / ‖g‖₂. L1: sign(g) on the largest 1% of the coordinates, in equal shares (the step of
        SLIDE, Tramèr & Boneh 2019); the exact maximiser moves a single pixel, which makes a poor attack.
        """
        return self._ball.ascent(gradient)

    def contains(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Whether each sample is finite, in the ball and in the box, up to float32 rounding: (N,) bool."""
        low, high = self.clip
        flat = x_adv.flatten(1)
        in_box = ((flat >= low) & (flat <= high)).all(1)  # False for NaN, too
        return in_box & (self.distance(x_adv, x) <= self.radius * (1 + RELATIVE_TOLERANCE) + ABSOLUTE_TOLERANCE)

    @property
    def _ball(self) -> _Ball:
        return _BALLS[self.norm]


def require_threat_model(place: str, threat: object) -> None:
    """Refuse what is no threat model, as the name of one.

    Raises:
        UserError: naming the place and what was given.
    """
    if not isinstance(threat, ThreatModel):
        raise UserError(f"{place}.threat must be a threat model, as threat=<name> chooses it, got {threat!r}")


class _Ball(ABC):
    """The geometry of one norm."""

    @abstractmethod
    def norm(self, delta: Tensor) -> Tensor:
        """(N, d) → (N,)."""

    @abstractmethod
    def project(self, x_adv: Tensor, x: Tensor, radius: float, clip: tuple[float, float]) -> Tensor: ...

    @abstractmethod
    def uniform(self, x: Tensor, generator: Generator) -> Tensor:
        """A uniform draw from the unit ball, of x's shape."""

    @abstractmethod
    def ascent(self, gradient: Tensor) -> Tensor: ...


class _Linf(_Ball):
    def norm(self, delta: Tensor) -> Tensor:
        return delta.abs().amax(1)

    def project(self, x_adv: Tensor, x: Tensor, radius: float, clip: tuple[float, float]) -> Tensor:
        low, high = clip
        return torch.clamp(x_adv, (x - radius).clamp_(min=low), (x + radius).clamp_(max=high))

    def uniform(self, x: Tensor, generator: Generator) -> Tensor:
        return 2 * uniform_like(x, generator) - 1

    def ascent(self, gradient: Tensor) -> Tensor:
        return gradient.sign()


class _L2(_Ball):
    def norm(self, delta: Tensor) -> Tensor:
        return delta.square().sum(1).sqrt()

    def project(self, x_adv: Tensor, x: Tensor, radius: float, clip: tuple[float, float]) -> Tensor:
        delta = x_adv - x
        length = torch.linalg.vector_norm(delta.flatten(1), dim=1, dtype=torch.float64)
        shrink = (radius / length.clamp(min=radius)).nan_to_num(1.0) if radius else torch.zeros_like(length)
        return _add_towards(x, delta * per_sample(shrink, x).to(x.dtype), clip)

    def uniform(self, x: Tensor, generator: Generator) -> Tensor:
        direction = self.ascent(normal_like(x, generator))
        radius = uniform_like(x.flatten(1)[:, 0], generator) ** (1 / x[0].numel())
        return direction * per_sample(radius, x)

    def ascent(self, gradient: Tensor) -> Tensor:
        # In float64, squares of tiny gradients do not underflow.
        length = torch.linalg.vector_norm(gradient.flatten(1), dim=1, dtype=torch.float64).to(gradient.dtype)
        return gradient / per_sample(length.where(length > 0, 1), gradient)


class _L1(_Ball):
    moved_share = 0.01

    def norm(self, delta: Tensor) -> Tensor:
        return delta.abs().sum(1)

    def project(self, x_adv: Tensor, x: Tensor, radius: float, clip: tuple[float, float]) -> Tensor:
        """Soft-threshold δ by the λ at which Σ_i min((|δ_i| − λ)₊, room_i) = ε, where room_i is the way to the box."""
        delta = (x_adv - x).flatten(1).double()
        start = x.flatten(1).double()
        size = delta.abs()
        room = torch.where(delta > 0, clip[1] - start, start - clip[0])
        # f(λ) = Σ (|δ|−λ)₊ − (|δ|−room−λ)₊ is piecewise linear; walk down its breakpoints from the largest.
        breaks = torch.cat([size, size - room], 1)
        signs = torch.cat([torch.ones_like(size), -torch.ones_like(size)], 1)
        breaks, order = breaks.sort(dim=1, descending=True)
        signs = signs.gather(1, order)
        slope, offset = signs.cumsum(1), (signs * breaks).cumsum(1)
        beyond = offset - slope * breaks > radius
        segment = (beyond.int().argmax(1, keepdim=True) - 1).clamp(min=0)  # the last break before ε is exceeded
        threshold = (offset.gather(1, segment) - radius) / slope.gather(1, segment).clamp(min=1)
        within = (torch.minimum(size, room).sum(1, keepdim=True) <= radius) | ~beyond.any(1, keepdim=True)
        threshold = threshold.clamp(min=0).masked_fill(within, 0)
        moved = torch.minimum((size - threshold).clamp(min=0), room) * delta.sign()
        return _add_towards(x, moved.view_as(x).to(x.dtype), clip)

    def uniform(self, x: Tensor, generator: Generator) -> Tensor:
        # |δ| ~ exponentials over their sum together with one more exponential; signs are fair coins.
        magnitude = -torch.log1p(-uniform_like(x, generator))
        spare = -torch.log1p(-uniform_like(x.flatten(1)[:, 0], generator))
        total = self.norm(magnitude.flatten(1)) + spare
        sign = torch.where(uniform_like(x, generator) < 0.5, -1.0, 1.0)
        return sign * magnitude / per_sample(total, x)

    def ascent(self, gradient: Tensor) -> Tensor:
        flat = gradient.flatten(1)
        count = max(1, round(self.moved_share * flat.shape[1]))
        chosen = flat.abs().topk(count, dim=1).indices
        step = torch.zeros_like(flat).scatter_(1, chosen, flat.gather(1, chosen).sign() / count)
        return step.view_as(gradient)


_BALLS: dict[str, _Ball] = {"linf": _Linf(), "l2": _L2(), "l1": _L1()}


def _add_towards(x: Tensor, delta: Tensor, clip: tuple[float, float]) -> Tensor:
    """x + δ in the box, rounded towards x: no coordinate moves further than |δ_i|.

    What rounding has cut off the sum, x + δ − fl(x + δ), is computed exactly (Knuth's two-sum).
    """
    moved = x + delta
    virtual = moved - x
    lost = (x - (moved - virtual)).add_(delta - virtual)
    overshoot = lost.mul_(delta).sign_().clamp_(max=0).neg_()  # 1 or 0: several times as fast as bool and `where`
    return moved.add_(torch.nextafter(moved, x).sub_(moved).mul_(overshoot)).clamp_(*clip)
