"""The contract of every attribution in conf/attribution."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from conf_walk import WITHOUT_METRICS, choices, composed_together
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from xrobust.attributions import Attribution
from xrobust.config.build import build
from xrobust.errors import UserError
from xrobust.models import SmallCNN
from xrobust.randomness import SampleStreams

NAMES = choices("attribution")


def smooth_model() -> nn.Module:
    """Softplus instead of ReLU, so that second derivatives exist; images have decision boundaries near them."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SmallCNN(num_classes=10, in_channels=1, image_size=8, activation="softplus").double().eval()
    with torch.no_grad():  # untrained, it would predict one class for all images: at a grey one, let all classes tie
        model.layers.linear2.bias -= model(torch.full((1, 1, 8, 8), 0.3, dtype=torch.float64))[0]
    return model


def relu_model() -> nn.Module:
    """What rules for the backward pass of ReLU explain."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SmallCNN(num_classes=10, in_channels=1, image_size=8).double().eval()


def attention_model() -> nn.Module:
    """A small vision transformer with a class token."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = VisionTransformer(8, 2, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=8, num_classes=10)
        model.conv_proj = nn.Conv2d(1, 8, 2, 2)
        return model.double().eval()


# A method that explains some networks only says which, in its class attribute `explains`.
NETWORKS = {"any": smooth_model, "relu": relu_model, "attention": attention_model}


def model_for(method: Attribution) -> nn.Module:
    return NETWORKS[getattr(method, "explains", "any")]()


def built_method(name: str) -> Attribution:
    return build(composed_together("attribution", *WITHOUT_METRICS)[name], f"attribution.{name}")


def streams(rows: range) -> SampleStreams:
    return SampleStreams(0, rows)


def check_shape(method: Attribution, x: Tensor, y: Tensor) -> None:
    x_before = x.clone()
    attribution = method(model_for(method), x, y)
    assert attribution.shape == x.shape and attribution.isfinite().all() and not attribution.requires_grad
    assert torch.equal(x, x_before)


def check_batch_size(method: Attribution, x: Tensor, y: Tensor) -> None:
    model = model_for(method)
    whole = method(model, x, y, generator=streams(range(6)))
    one = [method(model, x[i : i + 1], y[i : i + 1], generator=streams(range(i, i + 1))) for i in range(6)]
    inner = replace(method, batch_size=2)(model, x, y, generator=streams(range(6)))
    torch.testing.assert_close(torch.cat(one), whole)
    torch.testing.assert_close(inner, whole)


def check_differentiable(method: Attribution, x: Tensor, y: Tensor) -> None:
    """Gradients of a function of the map with respect to the input and a weight, against central differences."""
    model = model_for(method)
    if not method.differentiable:
        with pytest.raises(UserError, match="cannot be differentiated"):
            method(model, x, y, create_graph=True)
        return
    probe = torch.linspace(-1, 1, x[:2].numel(), dtype=x.dtype).view_as(x[:2])

    def value(x_: Tensor) -> Tensor:
        return (method(model, x_, y[:2], create_graph=True, generator=streams(range(2))) * probe).sum()

    x_in, weight = x[:2].clone().requires_grad_(), next(model.parameters())
    by_x, by_weight = torch.autograd.grad(value(x_in), [x_in, weight])
    direction, step = torch.randn(x_in.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype), 1e-5
    numeric = (value(x[:2] + step * direction) - value(x[:2] - step * direction)) / (2 * step)
    torch.testing.assert_close((by_x * direction).sum(), numeric.detach(), rtol=1e-4, atol=1e-7)
    shift = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype) * step
    with torch.no_grad():
        weight += shift
        above = value(x[:2])
        weight -= 2 * shift
        below = value(x[:2])
    torch.testing.assert_close((by_weight * shift / step).sum(), (above - below) / (2 * step), rtol=1e-4, atol=1e-7)


CHECKS = [check_shape, check_batch_size, check_differentiable]


@pytest.fixture
def batch(digits: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return digits[0][:6].double(), digits[1][:6]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", NAMES)
def test_attribution_keeps_the_contract(name: str, check, batch: tuple[Tensor, Tensor]) -> None:
    check(built_method(name), *batch)


@dataclass(frozen=True, kw_only=True)
class Faulty(Attribution):
    """One planted fault each; the checks must see it."""

    fault: str

    def attribute(self, model, x, score, create_graph, generator) -> Tensor:  # type: ignore[no-untyped-def]
        if not x.requires_grad:
            x = x.clone().requires_grad_()
        gradient = torch.autograd.grad(score(model(x)).sum(), x, create_graph=create_graph)[0]
        if self.fault == "reduces channels":
            return gradient.sum((1, 2))
        if self.fault == "normalises over the batch":
            return gradient / gradient.abs().max()
        return gradient.detach() * (x if create_graph else 1)  # "forgets the second derivative"


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ("reduces channels", check_shape),
        ("normalises over the batch", check_batch_size),
        ("forgets the second derivative", check_differentiable),
    ],
)
def test_the_checks_see_planted_faults(fault: str, check, batch: tuple[Tensor, Tensor]) -> None:
    with pytest.raises((AssertionError, RuntimeError)):
        check(Faulty(fault=fault), *batch)
