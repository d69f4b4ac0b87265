"""The contract of every attack in conf/attack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import pytest
import torch
from conf_walk import GIVEN, built_attack, choices
from torch import Tensor, nn

from xrobust.attacks import Attack
from xrobust.randomness import SampleStreams
from xrobust.threat import ThreatModel

BUDGETS = {"steps": 12, "search_steps": 3, "queries": 60, "restarts": 2, "targets": 2}


def cheap(attack: Attack) -> Attack:
    """The same attack with a small budget: the contract holds for any, and every attack in conf/ is walked.

    Attacks that are composed of others are made cheap all the way down.
    """
    changes: dict[str, Any] = {}
    for field in fields(attack):
        value = getattr(attack, field.name)
        if field.name in BUDGETS and isinstance(value, int):
            changes[field.name] = min(value, BUDGETS[field.name])
        elif isinstance(value, Attack):
            changes[field.name] = cheap(value)
        elif isinstance(value, Mapping):
            changes[field.name] = {k: cheap(v) if isinstance(v, Attack) else v for k, v in value.items()}
    return replace(attack, **changes)


NAMES = [name for name in choices("attack") if f"attack={name}" not in GIVEN]


def check_valid(attack: Attack, model: nn.Module, x: Tensor, y: Tensor) -> None:
    x_adv = attack(model, x, y, generator=torch.Generator().manual_seed(0))
    assert x_adv.shape == x.shape and x_adv.dtype == torch.float32 and not x_adv.requires_grad
    assert attack.threat.contains(x_adv, x).all()


def check_deterministic(attack: Attack, model: nn.Module, x: Tensor, y: Tensor) -> None:
    first = attack(model, x, y, generator=torch.Generator().manual_seed(3))
    torch.rand(7)  # the global generator moves on, the attack must not notice
    assert torch.equal(first, attack(model, x, y, generator=torch.Generator().manual_seed(3)))


def check_no_trace(attack: Attack, model: nn.Module, x: Tensor, y: Tensor) -> None:
    model.train()
    modes = [m.training for m in model.modules()]
    buffers = [b.clone() for b in model.buffers()]
    gradients = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    rng, x_before = torch.get_rng_state(), x.clone()
    attack(model, x, y, generator=torch.Generator().manual_seed(0))
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(now, before) for now, before in zip(model.buffers(), buffers, strict=True))
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert parameter.requires_grad
        assert parameter.grad is None if gradient is None else torch.equal(parameter.grad, gradient)
    assert torch.equal(torch.get_rng_state(), rng) and torch.equal(x, x_before)


def check_inference_mode(attack: Attack, model: nn.Module, x: Tensor, y: Tensor) -> None:
    outside = attack(model, x, y, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        inside = attack(model, x * 1, y * 1, generator=torch.Generator().manual_seed(0))
    assert torch.equal(outside, inside)


def check_sample_streams(attack: Attack, model: nn.Module, x: Tensor, y: Tensor) -> None:
    """Robustness of each sample does not depend on the batch it comes in (up to rounding, so predictions count)."""
    whole = attack(model, x, y, generator=SampleStreams(0, range(len(x))))
    halves = [
        attack(model, x[part], y[part], generator=SampleStreams(0, range(len(x))[part]))
        for part in (slice(0, 3), slice(3, None))
    ]
    torch.testing.assert_close(torch.cat(halves), whole, rtol=0, atol=1e-3)


def check_bfloat16(attack: Attack, model: nn.Module, x: Tensor, y: Tensor) -> None:
    """Whatever the precision of the weights or the autocast, pixels are float32 and valid."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        check_valid(attack, model, x, y)
    check_valid(attack, model.bfloat16(), x, y)


CHECKS = [check_valid, check_bfloat16, check_deterministic, check_no_trace, check_inference_mode, check_sample_streams]


class WithBatchNorm(nn.Module):
    """A real model behind a batch norm, whose statistics an attack must not move."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.norm, self.inner = nn.BatchNorm2d(1, affine=False), inner
        self.norm.running_var.fill_(1 - self.norm.eps)  # the identity in eval mode

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.norm(x))


@pytest.fixture
def model(digits_model: nn.Module) -> nn.Module:
    return WithBatchNorm(digits_model).eval()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", NAMES)
def test_attack_keeps_the_contract(name: str, check, model: nn.Module, digits: tuple[Tensor, Tensor]) -> None:
    attack = cheap(built_attack(name))
    check(attack, model, digits[0][:6], digits[1][:6])


@dataclass(frozen=True, kw_only=True)
class Faulty(Attack):
    """One planted fault each; the checks must see it."""

    fault: str

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator=None) -> Tensor:
        if self.fault == "leaves the ball":
            return (x + 2 * self.threat.radius).clamp(0, 1)
        if self.fault == "global randomness":
            return self.threat.project(x + 0.1 * torch.randn_like(x), x)
        if self.fault == "backward":
            nn.functional.cross_entropy(model(x), y).backward()
            return x.clone()
        if self.fault == "wrong mode":
            model.eval()
            return x.clone()
        if self.fault == "batch dependent":
            return self.threat.project(x + 0.1 * x.mean(), x)
        raise AssertionError(self.fault)

    run = __call__


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ("leaves the ball", check_valid),
        ("global randomness", check_deterministic),
        ("global randomness", check_no_trace),
        ("backward", check_no_trace),
        ("wrong mode", check_no_trace),
        ("batch dependent", check_sample_streams),
    ],
)
def test_the_checks_see_planted_faults(fault: str, check, model: nn.Module, digits: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(AssertionError):
        check(Faulty(threat=ThreatModel("linf", "0.1"), fault=fault), model, digits[0][:6], digits[1][:6])
