"""What is known of an attribution without any metric: what a map costs, and what it demands of the model."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from xrobust.attributions import Attribution, Gradient
from xrobust.metrics import Probe


@dataclass(frozen=True)
class MethodFacts:
    """Facts about an attribution on a model.

    Args:
        milliseconds: an image, on the machine at hand.
        gradients: the same as a multiple of one gradient.
        differentiable: whether the map can be differentiated, for attacks on it and for training with it.
        demands: what it asks of the model beyond a forward pass.
    """

    milliseconds: float
    gradients: float
    differentiable: bool
    demands: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def method_facts(probe: Probe, attributions: Mapping[str, Attribution]) -> dict[str, MethodFacts]:
    """By name, the facts of each attribution, timed on the probe's images."""
    gradient = _seconds(probe, Gradient(batch_size=probe.batch_size))
    facts = {}
    for name, method in attributions.items():
        seconds = _seconds(probe, method)
        ms = 1000 * seconds / len(probe)
        facts[name] = MethodFacts(ms, seconds / gradient, method.differentiable, method.demands)
    return facts


def _seconds(probe: Probe, method: Attribution) -> float:
    """The shorter of two maps, since the first may have to warm up."""
    times = []
    for _ in range(2):
        began = time.perf_counter()
        probe.using(method).attribute(probe.x)
        times.append(time.perf_counter() - began)
    return min(times)
