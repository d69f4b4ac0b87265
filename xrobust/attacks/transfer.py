"""Attacks through another model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from xrobust.attacks.wrapper import Wrapper
from xrobust.digest import sha256
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
        source = self._source if isinstance(self.surrogate, nn.Module) else self._source.to(x.device)
        return self.attack(source, x, y, generator=generator)

    def describe(self) -> dict[str, Any]:
        """With the SHA-256 of the surrogate's weights: the path may hold others tomorrow."""
        return {**super().describe(), "surrogate_sha256": sha256(self._source.state_dict().items())}

    @cached_property
    def _source(self) -> nn.Module:
        if isinstance(self.surrogate, nn.Module):
            return self.surrogate
        import xrobust  # here, because attacks on modules need no bundles

        return xrobust.load(self.surrogate)
