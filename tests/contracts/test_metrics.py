"""The contract of every explanation metric in conf/metrics."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from conf_walk import choices, composed_together
from torch import Tensor, nn

from xrobust.attacks import PGD, TopKAttack
from xrobust.attributions import Gradient
from xrobust.config.build import build
from xrobust.errors import UserError
from xrobust.metrics import ExplanationMetric, Probe
from xrobust.threat import ThreatModel

NAMES = choices("metrics")
THREAT = ThreatModel("linf", "0.1")


def built_metric(name: str) -> ExplanationMetric:
    return build(composed_together("metrics", "metrics@card_metrics=[]")[name], f"metrics.{name}")


def probe(model: nn.Module, x: Tensor, y: Tensor, rows: slice) -> Probe:
    attack = PGD(threat=THREAT, steps=3, keep="worst")
    index = torch.arange(len(x))[rows]
    return Probe(
        model=model,
        x=x[rows],
        y=y[rows],
        index=index,
        method=Gradient(),
        threat=THREAT,
        attack=attack,
        map_attack=TopKAttack(threat=THREAT, attribution=Gradient(), steps=3),
        mask=x[rows, 0] > 0.5,
        pool=(x, y),
    )


def measured(metric: ExplanationMetric, model: nn.Module, x: Tensor, y: Tensor, parts: list[slice]) -> Tensor:
    metric.reset()
    for part in parts:
        metric.update(probe(model, x, y, part))
    return metric.compute()


def check_declared(metric: ExplanationMetric, model: nn.Module, x: Tensor, y: Tensor) -> None:
    assert metric.higher_is_better in (True, False)
    assert metric.group and metric.cost in ("cheap", "moderate", "expensive")
    values = metric.per_sample(probe(model, x, y, slice(None)))
    assert values.shape == (len(x),) and values.isfinite().any()


def check_batch_size(metric: ExplanationMetric, model: nn.Module, x: Tensor, y: Tensor) -> None:
    whole = measured(metric, model, x, y, [slice(None)])
    singles = measured(metric, model, x, y, [slice(i, i + 1) for i in range(len(x))])
    uneven = measured(metric, model, x, y, [slice(7, None), slice(0, 7)])
    torch.testing.assert_close(singles, whole, rtol=2e-3, atol=1e-5)
    torch.testing.assert_close(uneven, whole, rtol=2e-3, atol=1e-5)


def check_nothing_changes(metric: ExplanationMetric, model: nn.Module, x: Tensor, y: Tensor) -> None:
    model.train()
    before = [x.clone(), y.clone(), torch.get_rng_state(), *[b.clone() for b in model.state_dict().values()]]
    seen = probe(model, x, y, slice(None))
    maps = seen.map.clone()
    metric.per_sample(seen)
    after = [x, y, torch.get_rng_state(), *model.state_dict().values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert torch.equal(seen.map, maps) and model.training


def check_undefined_is_counted(metric: ExplanationMetric, model: nn.Module, x: Tensor, y: Tensor) -> None:
    """A model with constant logits explains nothing: its zero maps may be defined, but never half-swallowed."""
    constant = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    nn.init.zeros_(constant[1].weight)
    values = metric.per_sample(probe(constant, x, y, slice(None)))
    metric.reset()
    metric.update(probe(constant, x, y, slice(None)))
    defined = values.isfinite()
    assert metric.valid_share().item() == pytest.approx(defined.double().mean().item())
    expected = values[defined].double().mean()  # NaN if none is defined
    torch.testing.assert_close(metric.compute(), expected, equal_nan=True)


def check_needs_are_declared(metric: ExplanationMetric, model: nn.Module, x: Tensor, y: Tensor) -> None:
    """A probe that has what the metric says it needs, and nothing else that is optional, is enough."""
    seen = probe(model, x, y, slice(None))
    spare = dict.fromkeys(seen.parts_there() - metric.needs)
    try:
        metric.per_sample(replace(seen, **spare, shared={}))
    except UserError as error:
        raise AssertionError(f"it says that it needs {set(metric.needs)}") from error


CHECKS = [
    check_declared,
    check_batch_size,
    check_nothing_changes,
    check_undefined_is_counted,
    check_needs_are_declared,
]


@pytest.fixture
def batch(digits: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return digits[0][:12], digits[1][:12]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", NAMES)
def test_metric_keeps_the_contract(name: str, check, digits_model: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    check(built_metric(name), digits_model, *batch)


class Faulty(ExplanationMetric):
    """One planted fault each; the checks must see it."""

    higher_is_better, group, cost = True, "complexity", "cheap"

    def __init__(self, fault: str):
        super().__init__()
        self.fault = fault

    def per_sample(self, probe: Probe) -> Tensor:
        size = probe.map.abs().flatten(1).sum(1)
        if self.fault == "normalises over the batch":
            return size / size.max()
        if self.fault == "averages too early":
            return size.mean()
        if self.fault == "attacks unasked":
            return probe.adversarial.flatten(1).sum(1)
        if self.fault == "writes into the map":
            probe.map.abs_()
        return size

    def update(self, probe: Probe) -> None:
        values = self.per_sample(probe)
        if self.fault == "swallows":
            values = values.new_tensor([values.sum(), torch.nan])
            self.total -= len(values) - len(probe)
        defined = values.isfinite()
        self.value_sum += values[defined].double().sum()
        self.valid += defined.sum()
        self.total += len(values)


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ("averages too early", check_declared),
        ("normalises over the batch", check_batch_size),
        ("writes into the map", check_nothing_changes),
        ("swallows", check_undefined_is_counted),
        ("attacks unasked", check_needs_are_declared),
    ],
)
def test_the_checks_see_planted_faults(
    fault: str, check, digits_model: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    with pytest.raises(AssertionError):
        check(Faulty(fault), digits_model, *batch)
