"""Attacks through another model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor, nn

from xrobust.attacks.wrapper import Wrapper
from xrobust.randomness import Generator


@dataclass(frozen=True, kw_only=True)
class Transfer(Wrapper):
    """Adversarial examples of a surrogate model, handed to the attacked model (Papernot et al. 2017).

    The attacked model is never asked. Where such examples do better than an attack on the model itself, its
    gradients are masked.

    Args:
        attack: what attacks the surrogate.
        surrogate: a module from images in [0, 1] to logits, on the images' device; or the path of a bundle.
    """

    surrogate: str | nn.Module

    def run(self, model: nn.Module, x: Tensor, y: Tensor, generator: Generator) -> Tensor:
        source = self.surrogate if isinstance(self.surrogate, nn.Module) else self._bundle.to(x.device)
        return self.attack(source, x, y, generator=generator)

    @cached_property
    def _bundle(self) -> nn.Module:
        import xrobust  # here, because attacks on modules need no bundles

        return xrobust.load(self.surrogate)  # type: ignore[arg-type]
