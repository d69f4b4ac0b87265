"""The probe: computes once, shares, leaves no trace, and draws by sample."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xrobust.attacks import PGD
from xrobust.attributions import Gradient, InputXGradient, SmoothGrad
from xrobust.errors import UserError
from xrobust.metrics import Probe, magnitude
from xrobust.randomness import uniform_like
from xrobust.threat import ThreatModel

THREAT = ThreatModel("linf", 0.1)
DERIVED = [
    "logits",
    "prediction",
    "gradient",
    "loss_gradient",
    "adversarial",
    "neighbour",
    "map",
    "adversarial_map",
    "neighbour_map",
]


@pytest.fixture
def probe(digits: tuple[Tensor, Tensor], digits_model: nn.Module) -> Probe:
    x, y = digits
    return Probe(
        model=digits_model,
        x=x[:20],
        y=y[:20],
        index=torch.arange(20),
        method=SmoothGrad(samples=3),
        threat=THREAT,
        attack=PGD(threat=THREAT, steps=4),
    )


def part(probe: Probe, rows: Tensor, **changes) -> Probe:
    """Some samples of a probe, with everything still to be computed."""
    values = {name: getattr(probe, name) for name in ("model", "method", "threat", "attack", "seed", "batch_size")}
    return Probe(**{**values, "x": probe.x[rows], "y": probe.y[rows], "index": probe.index[rows], **changes})


def passes(probe: Probe) -> list[int]:
    """Grows with each pass through the model, by the number of images."""
    seen: list[int] = []
    probe.model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    return seen


def test_each_quantity_is_what_it_says(probe: Probe):
    model, x, y = probe.model, probe.x, probe.y
    torch.testing.assert_close(probe.logits, model(x).detach())
    assert torch.equal(probe.prediction, probe.logits.argmax(1))
    torch.testing.assert_close(probe.gradient, Gradient()(model, x, y))
    leaf = x.clone().requires_grad_()
    F.cross_entropy(model(leaf), y, reduction="sum").backward()
    torch.testing.assert_close(probe.loss_gradient, leaf.grad)
    attacked = probe.attack(model, x, y, generator=probe.streams("attack"))
    torch.testing.assert_close(probe.adversarial, attacked)
    assert THREAT.contains(probe.neighbour, x).all() and THREAT.contains(probe.adversarial, x).all()
    assert (THREAT.distance(probe.neighbour, x) > 0.09).all()
    for name, points in (("map", x), ("adversarial_map", attacked), ("neighbour_map", probe.neighbour)):
        expected = probe.method(model, points, y, generator=probe.streams("attribution"))
        torch.testing.assert_close(getattr(probe, name), expected)


@pytest.mark.parametrize("name", DERIVED)
def test_each_quantity_is_computed_once_and_detached(probe: Probe, name: str):
    first = getattr(probe, name)
    seen = passes(probe)
    again = getattr(probe, name)
    assert torch.equal(first, again) and not again.requires_grad
    assert seen == []


def test_another_method_shares_what_does_not_depend_on_it(probe: Probe):
    other = probe.using(InputXGradient())
    assert other.adversarial is probe.adversarial
    assert probe.neighbour is other.neighbour
    assert probe.logits is other.logits
    own = probe.map
    torch.testing.assert_close(other.map, InputXGradient()(probe.model, probe.x, probe.y))
    assert not torch.allclose(other.map, own)


@pytest.mark.parametrize("name", DERIVED)
def test_nothing_depends_on_batch_size_order_or_partition(probe: Probe, name: str):
    probe = part(probe, torch.arange(20), x=probe.x.double(), model=probe.model.double())
    whole = getattr(probe, name)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    for batch_size in (1, 7):
        for rows in (torch.arange(20), order, order[:3]):
            torch.testing.assert_close(getattr(part(probe, rows, batch_size=batch_size), name), whole[rows])


def test_the_batch_size_bounds_what_the_model_sees(probe: Probe):
    small = part(probe, torch.arange(20), batch_size=7, method=Gradient(batch_size=7))
    seen = passes(small)
    for name in DERIVED:
        getattr(small, name)
    assert max(seen) == 7


def test_streams_are_keyed_by_seed_purpose_and_sample(probe: Probe):
    def draw(of: Probe, purpose: str) -> Tensor:
        return uniform_like(of.x, of.streams(purpose))

    first = draw(probe, "a")
    assert torch.equal(draw(probe, "a"), first)
    assert torch.equal(draw(part(probe, torch.tensor([11, 3])), "a"), first[[11, 3]])
    assert not torch.equal(draw(probe, "b"), first)
    assert not torch.equal(draw(part(probe, torch.arange(20), seed=1), "a"), first)
    assert first.flatten(1).unique(dim=0).shape == (20, 64)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_works_where_gradients_are_off(probe: Probe, context):
    with context():
        inside = part(probe, torch.arange(20), x=probe.x.clone(), y=probe.y.clone())
        found = {name: getattr(inside, name) for name in DERIVED}
    for name in DERIVED:
        torch.testing.assert_close(found[name], getattr(probe, name))


def test_leaves_no_trace(probe: Probe):
    probe.model.train()
    x, y = probe.x.clone(), probe.y.clone()
    random_state = torch.get_rng_state()
    for name in DERIVED:
        getattr(probe, name)
    assert all(module.training for module in probe.model.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in probe.model.parameters())
    assert torch.equal(probe.x, x) and torch.equal(probe.y, y)
    assert torch.equal(torch.get_rng_state(), random_state)


def test_half_images_are_computed_with_in_single_precision(probe: Probe):
    assert part(probe, torch.arange(20), x=probe.x.half()).map.dtype == torch.float32


def test_without_an_attack_there_are_no_adversarial_examples(probe: Probe):
    without = part(probe, torch.arange(20), attack=None)
    assert without.neighbour_map.isfinite().all()
    with pytest.raises(UserError, match="no attack"):
        without.adversarial_map  # noqa: B018


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threat": ThreatModel("linf", 0.2)}, "equal ε: its attack has linf ε=0.1, it has linf ε="),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"index": torch.arange(3)}, "N labels and N indices"),
        ({"y": torch.zeros(20, 1, dtype=torch.int64)}, "N labels and N indices"),
        ({"x": torch.zeros(20, 64)}, "images"),
    ],
)
def test_a_probe_that_does_not_fit_together_is_refused(probe: Probe, changes, message):
    with pytest.raises(UserError, match=message):
        part(probe, torch.arange(20), **changes)


def test_magnitude_adds_up_the_channels():
    attribution = torch.tensor([[[[1.0, -2.0]], [[-3.0, 0.0]]]])
    assert magnitude(attribution).tolist() == [[[4, 2]]]
