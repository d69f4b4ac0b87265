"""The contract of every regulariser in conf/regularizers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conf_walk import WITHOUT_METRICS, choices, composed_together
from torch import Tensor, nn

from xrobust.config.build import build
from xrobust.export.bundle import save_bundle
from xrobust.frame import hard_labels
from xrobust.models import SmallCNN
from xrobust.randomness import SampleStreams
from xrobust.regularizers import Regularizer
from xrobust.regularizers.base import trained_weights

NAMES = choices("regularizers")
ARCHITECTURE = {"_target_": "xrobust.models.SmallCNN", "num_classes": 10, "in_channels": 1, "image_size": 8}


@pytest.fixture(scope="module")
def _folder_with_a_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`bundle` in it holds the network that some regularisers ask for."""
    folder = tmp_path_factory.mktemp("teacher")
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = SmallCNN(num_classes=10, in_channels=1, image_size=8)
    save_bundle(folder / "bundle", model, ARCHITECTURE, class_names=list("0123456789"), training={})
    return folder


@pytest.fixture(autouse=True)
def _beside_the_bundle(_folder_with_a_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(_folder_with_a_bundle)


@pytest.fixture
def batch(digits: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return digits[0][:5].double(), digits[1][:5]


def built_regularizer(name: str) -> Regularizer:
    """The regulariser of that name, its searches cut short."""
    config = composed_together("regularizers", "data=digits", "threat.eps=0.1", *WITHOUT_METRICS)[name]
    regularizer = build(config, f"regularizers.{name}")
    short: Mapping[str, Any] = {"steps": 2} if "steps" in {field.name for field in fields(regularizer)} else {}
    return replace(regularizer, **short)


def smooth_model() -> nn.Module:
    """Softplus instead of ReLU, so that all derivatives exist."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SmallCNN(
            num_classes=10, in_channels=1, image_size=8, activation={"name": "softplus", "beta": 5}
        ).double()


def streams(rows: range) -> SampleStreams:
    return SampleStreams(0, rows)


def mean_of(regularizer: Regularizer, model: nn.Module, x: Tensor, y: Tensor):
    return regularizer.mean(model, x, y, generator=streams(range(len(x))))


def check_one_finite_value_for_each_image(regularizer: Regularizer, x: Tensor, y: Tensor) -> None:
    model, before = smooth_model(), x.clone()
    values = regularizer(model, x, y, generator=streams(range(len(x))))
    assert values.shape == (len(x),) and values.dtype == x.dtype and values.isfinite().all() and values.requires_grad
    assert (values > 0).any() and torch.equal(x, before)
    single = regularizer(model.float(), x.float(), y, generator=streams(range(len(x))))
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), values, rtol=2e-3, atol=1e-5)


def check_batches_do_not_matter(regularizer: Regularizer, x: Tensor, y: Tensor) -> None:
    model = smooth_model()
    whole = regularizer(model, x, y, generator=streams(range(5)))
    one = [regularizer(model, x[i : i + 1], y[i : i + 1], generator=streams(range(i, i + 1))) for i in range(5)]
    torch.testing.assert_close(torch.cat(one), whole)
    parts = replace(regularizer, batch_size=2)
    torch.testing.assert_close(parts(model, x, y, generator=streams(range(5))), whole)
    by_graph = torch.autograd.grad(whole.mean(), trained_weights(model), materialize_grads=True, allow_unused=True)
    bounded = mean_of(parts, model, x, y)
    torch.testing.assert_close(bounded.value, whole.mean().detach())
    torch.testing.assert_close(bounded.gradients, list(by_graph))


def check_gradient_is_that_of_finite_differences(regularizer: Regularizer, x: Tensor, y: Tensor) -> None:
    """In a direction between the gradient and a random one; a small step against the gradient lowers the penalty."""
    model, step = smooth_model(), 1e-6
    weights, generator = trained_weights(model), torch.Generator().manual_seed(0)
    gradients = mean_of(regularizer, model, x, y).gradients
    drawn = [torch.randn(w.shape, generator=generator, dtype=w.dtype) for w in weights]
    directions = [g / length(gradients) + d / length(drawn) for g, d in zip(gradients, drawn, strict=True)]

    def value_at(distance: float, ways: list[Tensor]) -> Tensor:
        moved = [(w, w.detach().clone()) for w in weights]
        with torch.no_grad():
            for w, way in zip(weights, ways, strict=True):
                w += distance * way
        value = mean_of(regularizer, model, x, y).value
        with torch.no_grad():
            for w, before in moved:
                w.copy_(before)
        return value

    slope = (value_at(step, directions) - value_at(-step, directions)) / (2 * step)
    expected = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
    torch.testing.assert_close(slope, expected, rtol=1e-4, atol=1e-9)
    assert value_at(-1e-5, [g / length(gradients) for g in gradients]) < value_at(0, gradients)


def length(tensors: list[Tensor]) -> Tensor:
    """‖·‖₂ of all of them together."""
    return torch.cat([tensor.flatten() for tensor in tensors]).norm()


def check_finite_where_gradients_vanish(regularizer: Regularizer, x: Tensor, y: Tensor) -> None:
    """A network whose logits depend on nothing, and one whose softmax is saturated."""
    constant, saturated = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), smooth_model().float()
    nn.init.zeros_(constant[1].weight)
    saturated.layers.linear2.weight.data.mul_(1e4)
    for model in (constant, saturated):
        mean = mean_of(regularizer, model, x.float(), y)
        assert mean.value.isfinite() and all(gradient.isfinite().all() for gradient in mean.gradients)


class WithBatchNorm(nn.Module):
    """What a regulariser must not move."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop, self.inner = nn.BatchNorm2d(1), nn.Dropout(0.1), smooth_model()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.drop(self.norm(x)))


def check_no_trace(regularizer: Regularizer, x: Tensor, y: Tensor) -> None:
    model = WithBatchNorm().double()
    model.norm.eval()
    modes = [module.training for module in model.modules()]
    before = [torch.get_rng_state(), *[value.clone() for value in model.state_dict().values()]]
    mean_of(regularizer, model, x, y)
    with torch.no_grad():
        assert regularizer(model, x, y, generator=streams(range(5))).requires_grad
    assert [module.training for module in model.modules()] == modes
    after = [torch.get_rng_state(), *model.state_dict().values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def check_class_probabilities_are_labels(regularizer: Regularizer, x: Tensor, y: Tensor) -> None:
    model, one_hot = smooth_model(), nn.functional.one_hot(y, 10).float()
    hard, soft = (regularizer(model, x, labels, generator=streams(range(5))) for labels in (y, one_hot))
    torch.testing.assert_close(hard, soft)


CHECKS = [
    check_one_finite_value_for_each_image,
    check_batches_do_not_matter,
    check_gradient_is_that_of_finite_differences,
    check_finite_where_gradients_vanish,
    check_no_trace,
    check_class_probabilities_are_labels,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", NAMES)
def test_regularizer_keeps_the_contract(name: str, check, batch: tuple[Tensor, Tensor]) -> None:
    check(built_regularizer(name), *batch)


@dataclass(frozen=True, kw_only=True)
class Faulty(Regularizer):
    """One planted fault each; the checks must see it."""

    fault: str

    def penalty(self, model: nn.Module, x: Tensor, y: Tensor, logits: Tensor, generator: Any) -> Tensor:
        x_in = x.detach().requires_grad_()
        if self.fault == "global randomness":
            x_in = (x + 0.01 * torch.rand_like(x)).detach().requires_grad_()
        if self.fault == "trains batch norm":
            model.train()
        hard = y if self.fault == "takes integers only" else hard_labels(y)
        score = model(x_in).log_softmax(1).gather(1, hard[:, None]).sum()
        (gradient,) = torch.autograd.grad(score, x_in, create_graph=True)
        if self.fault == "forgets a part of the derivative":
            gradient = 0.5 * gradient + 0.5 * gradient.detach()
        if self.fault == "fills .grad":
            nn.functional.cross_entropy(model(x_in), hard).backward()
        norm = gradient.flatten(1).square().sum(1)
        if self.fault == "averages too early":
            return norm.mean()
        if self.fault == "normalises over the batch":
            return norm / norm.detach().max()
        if self.fault == "unsafe norm":
            return norm.sqrt()
        return norm


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ("averages too early", check_one_finite_value_for_each_image),
        ("normalises over the batch", check_batches_do_not_matter),
        ("forgets a part of the derivative", check_gradient_is_that_of_finite_differences),
        ("unsafe norm", check_finite_where_gradients_vanish),
        ("trains batch norm", check_no_trace),
        ("fills .grad", check_no_trace),
        ("global randomness", check_no_trace),
        ("takes integers only", check_class_probabilities_are_labels),
    ],
)
def test_the_checks_see_planted_faults(fault: str, check, batch: tuple[Tensor, Tensor]) -> None:
    with pytest.raises((AssertionError, RuntimeError)):
        check(Faulty(fault=fault), *batch)
