"""What every attack shares: the frame around `run` that makes its result valid and leaves no trace."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from xrobust.errors import one_of
from xrobust.randomness import Generator, default_generator
from xrobust.threat import ThreatModel


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
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            if not self.autocast:
                stack.enter_context(torch.autocast(x.device.type, enabled=False))
            stack.enter_context(_in_mode(model, self.mode == "train", x.device))
            stack.enter_context(_without_parameter_gradients(model))
            # A clone, because tensors made in inference mode cannot be recorded by autograd.
            x = x.detach().clone() if x.dtype == torch.float64 else x.detach().float().clone()
            generator = default_generator(x.device) if generator is None else generator
            x_adv = self.threat.project(self.run(model, x, y.clone(), generator).detach(), x)
            _check_finite(x_adv, self)
            return x_adv

    @abstractmethod
    def run(self, model: nn.Module, x: Tensor, y: Tensor, generator: Generator) -> Tensor:
        """The attack itself; its result is projected onto the threat model."""

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
                shown.append(f"{f.name} {value}")
        return f"{type(self).__name__} ({', '.join([str(self.threat), *shown])})"


def _plain(value: Any) -> Any:
    if isinstance(value, Attack):
        return value.describe()
    if isinstance(value, ThreatModel):
        return {"norm": value.norm, "eps": str(value.fraction), "clip": list(value.clip)}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, bool | int | float | None) else str(value)


def logits_of(model: nn.Module, x: Tensor) -> Tensor:
    """The model's logits in the precision of x, whatever the precision of the weights."""
    weight = next((p for p in model.parameters() if p.is_floating_point()), x)
    return model(x.to(weight.dtype)).to(x.dtype)


@contextmanager
def _in_mode(model: nn.Module, train: bool, device: torch.device) -> Iterator[None]:
    """Every submodule in one mode; on leaving, each in the mode it had, and no trace of training-mode forwards."""
    modes = [(module, module.training) for module in model.modules()]
    with ExitStack() as stack:
        if train:
            stack.enter_context(torch.random.fork_rng([device] if device.type == "cuda" else []))
            buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
        model.train(train)
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training
            if train:
                for buffer, before in buffers:
                    buffer.data.copy_(before)


@contextmanager
def _without_parameter_gradients(model: nn.Module) -> Iterator[None]:
    """Gradients with respect to the input only, which spares autograd a third of the backward pass."""
    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)


def _check_finite(x_adv: Tensor, attack: Attack) -> None:
    message = f"{type(attack).__name__} produced pixels that are not finite: the model's logits or gradients are not"
    finite = torch.isfinite(x_adv).all()
    if x_adv.device.type == "cpu":
        if not finite:
            raise RuntimeError(message)
    else:
        torch._assert_async(finite, message)  # no synchronisation inside a training step
