"""The frame around every attack: valid results, no trace."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from callbacks import RobustAccuracy
from xrobust.attacks import EOT, FMN, PGD, Attack, Square, TopKAttack, WorstOf
from xrobust.attributions import Gradient
from xrobust.certification import BranchAndBound, Falsifier
from xrobust.errors import UserError
from xrobust.evaluation import Ladder
from xrobust.threat import ThreatModel

THREAT = ThreatModel("linf", "0.1")


class Watching(nn.Module):
    """Batch norm and dropout, and a note of the mode of each forward."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
        self.modes: list[bool] = []
        self.autocasts: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.modes.append(self.training)
        self.autocasts.append(torch.is_autocast_enabled("cpu"))
        return self.layers(x)


@dataclass(frozen=True, kw_only=True)
class Wild(Attack):
    """Returns whatever it is told to."""

    value: float

    def run(self, model: nn.Module, x: Tensor, y: Tensor, generator: object) -> Tensor:
        return torch.full_like(x, self.value)


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(12, 1, 4, 4, generator=generator), torch.randint(3, (12,), generator=generator)


class WatchingKernels(nn.Sequential):
    """Convolutions, and a note of how their kernels lie in memory in each forward."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 2), nn.Flatten())
        self.to(dtype)
        self.fast: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.fast.append(all(self[layer].weight.stride(1) == 1 for layer in (0, 1)))
        return super().forward(x)


@pytest.mark.parametrize(("dtype", "fast"), [(torch.float32, True), (torch.bfloat16, True), (torch.float64, False)])
def test_kernels_are_laid_out_for_speed_only_inside(dtype: torch.dtype, fast: bool) -> None:
    model, (x, y) = WatchingKernels(dtype), batch()
    before = [(p.data_ptr(), p.stride(), p.clone()) for p in model.parameters()]
    PGD(threat=THREAT, steps=2)(model, x, y)
    with pytest.raises(RuntimeError, match="not finite"):
        Wild(threat=THREAT, value=float("nan"))(model, x, y)
    assert model.fast == [fast] * 2
    for parameter, (pointer, stride, value) in zip(model.parameters(), before, strict=True):
        assert (parameter.data_ptr(), parameter.stride()) == (pointer, stride)
        assert torch.equal(parameter, value)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_no_trace_is_left(mode: str) -> None:
    model, (x, y) = Watching(), batch()
    model.train()
    model.layers[2].eval()  # a deliberately frozen batch norm
    model.layers[1].weight.requires_grad_(False)
    model.layers[4].weight.grad = torch.ones_like(model.layers[4].weight)
    modes = [m.training for m in model.modules()]
    flags = [p.requires_grad for p in model.parameters()]
    buffers = [b.clone() for b in model.buffers()]
    rng, x_before, y_before = torch.get_rng_state(), x.clone(), y.clone()
    PGD(threat=THREAT, steps=3, mode=mode)(model, x, y, generator=torch.Generator().manual_seed(1))
    assert set(model.modes) == {mode == "train"}
    assert [m.training for m in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(torch.equal(now, before) for now, before in zip(model.buffers(), buffers, strict=True))
    assert torch.equal(model.layers[4].weight.grad, torch.ones_like(model.layers[4].weight))
    assert model.layers[1].weight.grad is None
    assert torch.equal(torch.get_rng_state(), rng)
    assert torch.equal(x, x_before) and torch.equal(y, y_before)


def test_everything_is_restored_when_the_attack_fails() -> None:
    class Failing(Watching):
        def forward(self, x: Tensor) -> Tensor:
            raise ZeroDivisionError

    model, (x, y) = Failing().train(), batch()
    with pytest.raises(ZeroDivisionError):
        PGD(threat=THREAT)(model, x, y)
    assert model.training and all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_works_where_gradients_are_off(context, digits_model: nn.Module, digits: tuple[Tensor, Tensor]) -> None:
    x, y = digits[0][:20], digits[1][:20]
    attack = PGD(threat=THREAT, steps=3)
    outside = attack(digits_model, x, y)
    with context():
        inside = attack(digits_model, x * 1, y * 1)  # tensors that autograd cannot record
    assert torch.equal(outside, inside)


def test_results_are_projected_and_detached() -> None:
    x, y = batch()
    result = Wild(threat=THREAT, value=7.0)(Watching(), x, y)
    assert THREAT.contains(result, x).all() and not result.requires_grad


def test_a_result_that_is_not_finite_raises() -> None:
    x, y = batch()
    with pytest.raises(RuntimeError, match="Wild produced pixels that are not finite"):
        Wild(threat=THREAT, value=float("nan"))(Watching(), x, y)


def test_autocast_is_left_on_only_when_asked_for() -> None:
    x, y = batch()
    for autocast in (False, True):
        model = Watching()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            x_adv = PGD(threat=THREAT, steps=2, autocast=autocast)(model, x, y)
        assert set(model.autocasts) == {autocast}
        assert x_adv.dtype == torch.float32 and THREAT.contains(x_adv, x).all()


def test_a_bfloat16_model_is_attacked_in_float32_pixels(digits_model: nn.Module, digits: tuple[Tensor, Tensor]) -> None:
    x, y = digits[0][:50], digits[1][:50]
    model = digits_model.bfloat16()
    threat = ThreatModel("linf", "2/255")
    x_adv = PGD(threat=threat, steps=5)(model, x, y)
    assert x_adv.dtype == torch.float32 and threat.contains(x_adv, x).all()
    assert (x_adv != x).any()


def test_equal_generators_give_equal_results_and_none_means_seed_zero() -> None:
    model, (x, y) = Watching().eval(), batch()
    attack = PGD(threat=THREAT, steps=2, step_size="0.01")
    seeded = [attack(model, x, y, generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert torch.equal(seeded[0], seeded[1]) and torch.equal(seeded[0], attack(model, x, y))
    assert not torch.equal(seeded[0], seeded[2])


def test_gradient_accumulation_is_not_polluted() -> None:
    model, (x, y) = Watching().eval(), batch()
    nn.functional.cross_entropy(model(x), y).backward()
    before = [p.grad.clone() for p in model.parameters()]
    PGD(threat=THREAT)(model, x, y)
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), before, strict=True))


def test_the_description_names_every_hyper_parameter() -> None:
    described = PGD(threat=ThreatModel("linf", "8/255"), steps=7).describe()
    assert described["name"] == "PGD" and described["steps"] == 7
    assert described["threat"] == {"norm": "linf", "eps": "8/255", "clip": [0.0, 1.0]}


def test_a_wrong_mode_is_refused() -> None:
    with pytest.raises(UserError, match=r"PGD.mode must be one of 'eval', 'train', got 'test'"):
        PGD(threat=THREAT, mode="test")


@pytest.mark.parametrize(
    "attack",
    [
        PGD(threat=THREAT, targeted=True),
        Square(threat=THREAT, targeted=True),
        FMN(threat=THREAT, targeted=True),
        EOT(threat=THREAT, attack=PGD(threat=THREAT, targeted=True)),
        TopKAttack(threat=THREAT, attribution=Gradient()),
    ],
    ids=str,
)
def test_an_attack_that_does_not_mislead_measures_no_accuracy(attack: Attack) -> None:
    users = {
        "the attack of an evaluation": lambda: Ladder(attack),
        "WorstOf.attacks.one": lambda: WorstOf(threat=THREAT, attacks={"one": attack}),
        "robust_accuracy.val_attack": lambda: RobustAccuracy(attack, PGD(threat=THREAT)),
        "robust_accuracy.test_attack": lambda: RobustAccuracy(PGD(threat=THREAT), attack),
        "Falsifier.attack": lambda: Falsifier(threat=THREAT, attack=attack),
        "BranchAndBound.attack": lambda: BranchAndBound(threat=THREAT, attack=attack),
    }
    for place, use in users.items():
        with pytest.raises(UserError, match=f"{place} must look for images that the model gets wrong"):
            use()
