"""What every attack shares: the frame around `run` that makes its result valid and leaves no trace."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from xrobust.errors import UserError, one_of
from xrobust.frame import logits_of, untouched
from xrobust.randomness import Generator, default_generator
from xrobust.threat import ThreatModel, require_threat_model

__all__ = ["Attack", "logits_of"]


@dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """(model, x, y) → x_adv inside the threat model; a frozen value whose hyper-parameters are its fields.

    Args:
        threat: where the result must lie.
        mode: "eval" or "train", the mode of the model while it is attacked. In "train", batch-norm statistics and
            the random state that dropout uses are put back afterwards.
        autocast: keep the caller's autocast (attacks in mixed-precision training); otherwise the forward passes
            run in the model's own precision. Perturbations are computed in float32 either way.
    """

    threat: ThreatModel
    mode: str = "eval"
    autocast: bool = False

    def __post_init__(self) -> None:
        require_threat_model(type(self).__name__, self.threat)
        if self.mode not in ("eval", "train"):
            raise one_of(f"{type(self).__name__}.mode", self.mode, ["eval", "train"])

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Adversarial examples for a batch.

        Args:
            model: images in [0, 1] → logits (N, K).
            x: (N, C, H, W) in the threat model's box.
            y: (N,) the labels to get away from (for a targeted attack: the classes to reach).
            generator: the only source of randomness; none means a fresh one with seed 0.

        Returns:
            (N, C, H, W), detached, float32 (float64 for float64 images), in the ball and in the box.

        Raises:
            RuntimeError: if the attack produced a value that is not finite.

        Works under `no_grad` and `inference_mode`. Module modes, batch-norm statistics, `requires_grad` flags,
        `.grad` and the global random state are afterwards as before.
        """
        with untouched(model, x, train_mode=self.mode == "train", autocast=self.autocast, many_passes=True):
            # A clone, because tensors made in inference mode cannot be recorded by autograd.
            x = x.detach().clone() if x.dtype == torch.float64 else x.detach().float().clone()
            generator = default_generator(x.device) if generator is None else generator
            x_adv = self.threat.project(self.run(model, x, y.clone(), generator).detach(), x)
            _check_finite(x_adv, self)
            return x_adv

    @abstractmethod
    def run(self, model: nn.Module, x: Tensor, y: Tensor, generator: Generator) -> Tensor:
        """The attack itself; its result is projected onto the threat model."""

    @property
    def misleads(self) -> bool:
        """Whether it looks for images that the model gets wrong, so that an accuracy can be measured with it."""
        return not getattr(self, "targeted", False)

    def with_eps(self, eps: object) -> Self:
        """The same attack at another radius (step sizes that follow from ε follow)."""
        return replace(self, threat=self.threat.with_eps(eps))  # type: ignore[arg-type]

    def describe(self) -> dict[str, Any]:
        """The protocol as plain containers: the attack's name, every hyper-parameter, and a line to show."""
        described = {f.name: _plain(getattr(self, f.name)) for f in fields(self)}
        return {"name": type(self).__name__, **described, "summary": str(self)}

    def __str__(self) -> str:
        """The name, the threat model, all counts, and what differs from the defaults."""
        shown = []
        for f in fields(self):
            value = getattr(self, f.name)
            count = isinstance(value, int) and not isinstance(value, bool)
            if f.name not in ("threat", "autocast") and (count or value != f.default):
                shown.append(f"{f.name} {type(value).__name__ if isinstance(value, nn.Module) else value}")
        return f"{type(self).__name__} ({', '.join([str(self.threat), *shown])})"


def require_misleading(attack: Attack, place: str) -> None:
    """Refuse an attack that reaches for a class or keeps the prediction: what stands against it proves nothing.

    Raises:
        UserError: naming the attack and the place.
    """
    if not attack.misleads:
        raise UserError(f"{place} must look for images that the model gets wrong, which {attack} does not")


def _plain(value: Any) -> Any:
    if isinstance(value, Attack):
        return value.describe()
    if isinstance(value, nn.Module):
        return type(value).__name__
    if isinstance(value, ThreatModel):
        return {"norm": value.norm, "eps": str(value.fraction), "clip": list(value.clip)}
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, bool | int | float | None) else str(value)


def _check_finite(x_adv: Tensor, attack: Attack) -> None:
    message = f"{type(attack).__name__} produced pixels that are not finite: the model's logits or gradients are not"
    finite = torch.isfinite(x_adv).all()
    if x_adv.device.type == "cpu":
        if not finite:
            raise RuntimeError(message)
    else:
        torch._assert_async(finite, message)  # no synchronisation inside a training step
