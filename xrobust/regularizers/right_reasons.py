"""Right for the right reasons."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from xrobust.errors import UserError
from xrobust.randomness import Generator
from xrobust.regularizers.base import Regularizer
from xrobust.regularizers.gradients import input_gradient, squared_norm


@dataclass(frozen=True, kw_only=True)
class RightReasons(Regularizer):
    """R(x) = ‖(1 − M) ⊙ ∇ₓ Σ_k log p_k(x)‖², M the pixels that may matter (Ross, Hughes & Doshi-Velez 2017).

    Args:
        mask: images (N, C, H, W) → M, (N, H, W) bool, such as a data set's `ground_truth`.

    Raises:
        UserError: if there is no mask, or it does not fit the images.
    """

    mask: Callable[[Tensor], Tensor] | None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mask is None:
            raise UserError(
                "RightReasons.mask must be a function of the images that says which pixels may matter, such as "
                "data.ground_truth, which this data set does not have"
            )

    def penalty(self, model: nn.Module, x: Tensor, y: Tensor, logits: Tensor, generator: Generator) -> Tensor:
        assert self.mask is not None
        may_matter = self.mask(x.detach())
        if may_matter.shape != (len(x), *x.shape[-2:]):
            raise UserError(f"a mask must be (N, H, W) for images {tuple(x.shape)}, got {tuple(may_matter.shape)}")
        gradient = input_gradient(model, x, lambda outputs: outputs.log_softmax(1).sum(1))
        return squared_norm(gradient * ~may_matter[:, None])
