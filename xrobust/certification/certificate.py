"""What a certifier says of each sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

STATUSES = ("unknown", "certified", "falsified", "timeout")
UNKNOWN, CERTIFIED, FALSIFIED, TIMEOUT = range(len(STATUSES))


@dataclass(frozen=True, eq=False)
class Certificate:
    """Verdicts on N samples.

    Attributes:
        status: a place in `STATUSES`, (N,) int64. "certified": every image of the threat model gets the label.
            "falsified": a counter-example is known, which may be the image itself. "timeout": a budget ran out.
        margin: a lower bound of min_j z_y − z_j over all images of the threat model, (N,) float64: above 0 where the
            sample is certified, NaN where a bound was not finite, −∞ where none was computed.
        radius: a radius within which the label cannot change, in the norm of the threat model and with no regard to its
            ε, (N,) float64; NaN where the certifier knows of none.
        counter_example: images that are misclassified, NaN where none is known, (N, C, H, W).
        member: which member of a composed certifier decided, (N,) int64; 0 if it is not composed.
        work: sub-domains that were bounded, (N,) int64; 0 without branch and bound.
        seconds: the sample's share of the time, (N,) float64.
    """

    status: Tensor
    margin: Tensor
    radius: Tensor
    counter_example: Tensor
    member: Tensor
    work: Tensor
    seconds: Tensor

    @property
    def certified(self) -> Tensor:
        """(N,) bool."""
        return self.status == CERTIFIED

    @property
    def open(self) -> Tensor:
        """Neither certified nor falsified: (N,) bool."""
        return (self.status == UNKNOWN) | (self.status == TIMEOUT)

    @staticmethod
    def blank(x: Tensor) -> Certificate:
        """Nothing is known of any sample."""
        none = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        zero = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        unseen = torch.full_like(x, torch.nan)
        return Certificate(none, zero - torch.inf, zero + torch.nan, unseen, none.clone(), none.clone(), zero)

    @staticmethod
    def of_margins(x: Tensor, margin: Tensor, radius: Tensor | None = None) -> Certificate:
        """Certified where the margin is above 0: strictly, so that ties and NaN never are."""
        blank = Certificate.blank(x)
        status = torch.where(margin > 0, CERTIFIED, UNKNOWN)
        radius = blank.radius if radius is None else radius.double()
        return replace(blank, status=status, margin=margin.double(), radius=radius)

    def falsify(self, rows: Tensor, images: Tensor) -> None:
        """Note counter-examples for the samples `rows`."""
        self.status[rows] = FALSIFIED
        self.counter_example[rows] = images.to(self.counter_example.dtype)

    def put(self, rows: Tensor, part: Certificate) -> None:
        """Take the verdicts on the samples `rows` from another certificate."""
        for name, value in vars(self).items():
            value[rows] = getattr(part, name)

    @staticmethod
    def joined(parts: Sequence[Certificate]) -> Certificate:
        """The verdicts on several batches."""
        return Certificate(*(torch.cat([getattr(part, f.name) for part in parts]) for f in fields(Certificate)))
