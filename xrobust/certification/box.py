"""Axis-aligned boxes, the values of interval arithmetic."""

from __future__ import annotations

import torch
from torch import Tensor

from xrobust.threat import ThreatModel


class Box:
    """{z : lower ≤ z ≤ upper}, elementwise; kept as corners or as centre ± radius, and converted when asked for.

    Affine operations work on centre and radius, monotone ones on the corners; a chain of either converts nothing.
    """

    __slots__ = ("_centre", "_lower", "_radius", "_upper")

    def __init__(self, lower: Tensor, upper: Tensor):
        self._lower: Tensor | None = lower
        self._upper: Tensor | None = upper
        self._centre: Tensor | None = None
        self._radius: Tensor | None = None

    @staticmethod
    def around(centre: Tensor, radius: Tensor) -> Box:
        """The box centre ± radius."""
        box = Box.__new__(Box)
        box._lower = box._upper = None
        box._centre, box._radius = centre, radius
        return box

    @property
    def lower(self) -> Tensor:
        if self._lower is None:
            assert self._centre is not None and self._radius is not None
            self._lower = self._centre - self._radius
        return self._lower

    @property
    def upper(self) -> Tensor:
        if self._upper is None:
            assert self._centre is not None and self._radius is not None
            self._upper = self._centre + self._radius
        return self._upper

    @property
    def centre(self) -> Tensor:
        if self._centre is None:
            assert self._lower is not None and self._upper is not None
            self._centre = (self._lower + self._upper) / 2
        return self._centre

    @property
    def radius(self) -> Tensor:
        if self._radius is None:
            assert self._lower is not None and self._upper is not None
            self._radius = (self._upper - self._lower) / 2
        return self._radius

    @property
    def size(self) -> Tensor:
        """max |z| over the box."""
        return torch.maximum(self.lower.abs(), self.upper.abs())

    def widened(self, by: Tensor) -> Box:
        """The box with its corners moved outwards."""
        return Box(self.lower - by, self.upper + by)

    def rows(self, index: Tensor) -> Box:
        """The boxes of some samples."""
        return Box(self.lower[index], self.upper[index])

    def contains(self, z: Tensor, slack: float = 0.0) -> Tensor:
        """Whether each sample's values all lie in its box: (N, ...) → (N,)."""
        inside = (z >= self.lower - slack) & (z <= self.upper + slack)
        return inside.flatten(1).all(1)


def input_box(threat: ThreatModel, x: Tensor, dtype: torch.dtype | None = None) -> Box:
    """The box of an Linf threat model around images (N, ...): [x − ε, x + ε] ∩ [low, high].

    The corners are rounded outwards in the precision of x, so that every image of that precision which
    `threat.project` can return lies inside; with ε = 0 the box is x itself.

    Args:
        threat: of norm "linf".
        x: images.
        dtype: of the result; by default that of x.
    """
    lower = upper = x
    if threat.radius:
        exact, away = x.double(), torch.tensor(torch.inf, dtype=x.dtype, device=x.device)
        lower = torch.nextafter((exact - threat.radius).to(x.dtype), -away)
        upper = torch.nextafter((exact + threat.radius).to(x.dtype), away)
        # An attack subtracts an ε that is rounded to the precision of x, which may come to more.
        lower = torch.minimum(lower, x - threat.radius).clamp(min=threat.clip[0])
        upper = torch.maximum(upper, x + threat.radius).clamp(max=threat.clip[1])
    return Box(lower.to(dtype or x.dtype), upper.to(dtype or x.dtype))
