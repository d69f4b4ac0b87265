"""Batches whose images and labels are mixed in pairs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy.special import betaincinv
from torch import Tensor

from xrobust.errors import UserError

# images (N, C, H, W) in [0, 1], class probabilities (N, K), randomness → mixed images and class probabilities
Mix = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class MixUp:
    """x̃ = λx + (1 − λ)x′ and ỹ = λy + (1 − λ)y′, λ ~ Beta(α, α) for each image, x′ a partner in the batch
    (Zhang et al. 2018).

    Args:
        alpha: α > 0; towards 0, images stay themselves or become their partner.
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        _check_alpha("mixup", self.alpha)

    def __call__(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        share = _beta(self.alpha, len(x), generator).to(x)
        partner = torch.randperm(len(x), generator=generator).to(x.device)
        mixed = torch.lerp(x[partner], x, share[:, None, None, None]).clamp_(0, 1)
        return mixed, torch.lerp(y[partner], y, share[:, None])


@dataclass(frozen=True, kw_only=True)
class CutMix:
    """A box of x′ in x, with ỹ = λy + (1 − λ)y′, where 1 − λ is the box's share of the image (Yun et al. 2019).

    The box has the image's proportions, an area share drawn from Beta(α, α), and its centre at a uniform pixel; what
    lies outside the image is cut off. Rebuffi et al. 2021 found it to help adversarial training, with averaged weights.

    Args:
        alpha: α > 0.
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        _check_alpha("cutmix", self.alpha)

    def __call__(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        side = _beta(self.alpha, len(x), generator).sqrt()
        centre = torch.rand(2, len(x), generator=generator)
        partner = torch.randperm(len(x), generator=generator).to(x.device)
        rows, columns = (_inside(c, side, length) for c, length in zip(centre, x.shape[2:], strict=True))
        box = (rows[:, :, None] & columns[:, None, :]).to(x.device)
        share = box.float().mean((1, 2))[:, None]
        return torch.where(box[:, None], x[partner], x), torch.lerp(y, y[partner], share)


def _inside(centre: Tensor, side: Tensor, length: int) -> Tensor:
    """Which pixels of a line the box covers: its centre in [0, 1) and side in [0, 1], (N,) each → (N, length) bool."""
    size = (side * length).round()[:, None]
    first = (centre * length).floor()[:, None] - (size / 2).floor()
    place = torch.arange(length)
    return (place >= first) & (place < first + size)


def _beta(alpha: float, count: int, generator: torch.Generator) -> Tensor:
    """Draws from Beta(α, α), by its quantile function: (count,) float32."""
    uniform = torch.rand(count, generator=generator, dtype=torch.float64)
    return torch.from_numpy(betaincinv(alpha, alpha, uniform.numpy())).float()


def _check_alpha(place: str, alpha: float) -> None:
    if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not alpha > 0:
        raise UserError(f"data.mix.{place}.alpha must be above 0, got {alpha!r}")
