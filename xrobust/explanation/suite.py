"""The grid of metrics × attributions on a set of images."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from torch import Tensor, nn

from xrobust.attributions import Attribution
from xrobust.errors import UserError, within
from xrobust.explanation.measurement import Measurement
from xrobust.metrics import ExplanationMetric, Probe

Watch = Callable[[str], None]
"""Is told the key of what comes next."""


def plan(
    attributions: Mapping[str, Attribution], metrics: Mapping[str, ExplanationMetric]
) -> dict[str, tuple[str, str | None]]:
    """What there is to measure: `<group>/<metric>[/<attribution>]` → (metric, attribution).

    A metric of the model alone is measured once. An attack on the map needs a map that can be differentiated, so
    metrics of attacked maps are left out for attributions that cannot be.
    """
    keys: dict[str, tuple[str, str | None]] = {}
    for name, metric in metrics.items():
        key = f"{metric.group}/{name}"
        if not metric.uses_attribution:
            keys[key] = (name, None)
            continue
        for method_name, method in attributions.items():
            if method.differentiable or "map_attack" not in metric.needs:
                keys[f"{key}/{method_name}"] = (name, method_name)
    return keys


REMEDIES = {
    "attack": "an attack",
    "map_attack": "an attack on the map",
    "mask": "data that tells which pixels matter (data.ground_truth, data=block_mnist, data=planted_patch)",
    "pool": "a pool of images",
}


def out_of_reach(metrics: Mapping[str, ExplanationMetric], probe: Probe) -> dict[str, str]:
    """The metrics that ask for what the probe does not have, each with what it needs."""
    there, found = probe.parts_there(), {}
    for name, metric in metrics.items():
        lacking = metric.lacks(probe) if len(probe) else None  # a process may have no images to ask about
        needs = [*(REMEDIES[need] for need in sorted(metric.needs - there)), lacking]
        found[name] = " and ".join(filter(None, needs))
    return {name: needs for name, needs in found.items() if needs}


def check_plan(attributions: Mapping[str, Attribution], metrics: Mapping[str, ExplanationMetric], probe: Probe) -> None:
    """Refuse to measure nothing: some metrics may be out of reach, and some maps cannot be attacked, but not all.

    Raises:
        UserError: naming a metric and what it needs.
    """
    missing = out_of_reach(metrics, probe)
    within = {name: metric for name, metric in metrics.items() if name not in missing}
    if not within:
        check_needs(metrics, probe)
    if not plan(attributions, within):
        raise UserError(
            f"metrics={next(iter(within))} needs an attack on the map, but attribution={', '.join(attributions)} "
            "cannot be differentiated"
        )


def check_needs(metrics: Mapping[str, ExplanationMetric], probe: Probe) -> None:
    """Refuse metrics that ask for what the probe does not have.

    Raises:
        UserError: naming the metric and what it needs.
    """
    for name, need in out_of_reach(metrics, probe).items():
        raise UserError(f"metrics={name} needs {need}, which this run does not have")


def check_attributions(attributions: Mapping[str, Attribution], model: nn.Module, x: Tensor, y: Tensor) -> None:
    """Refuse attributions that the network does not allow; each explains the first image.

    Args:
        attributions: by name.
        model: images in [0, 1] → logits; it leaves as it came.
        x: (N, C, H, W) in [0, 1].
        y: labels (N,).

    Raises:
        UserError: naming the attribution, and why.
    """
    for name, method in attributions.items():
        with within(f"attribution.{name}"):
            method(model, x[:1], y[:1])


def measure(
    probes: Sequence[Probe],
    attributions: Mapping[str, Attribution],
    metrics: Mapping[str, ExplanationMetric],
    watch: Watch = lambda key: None,
) -> list[Measurement]:
    """Every metric of every attribution, in the order of `plan`.

    Args:
        probes: the images, in parts that fit in memory: all maps of a part are kept until the next.
        attributions: by name.
        metrics: by name.
        watch: is told each key once for each part.
    """
    keys = plan(attributions, metrics)
    values: dict[str, list[np.ndarray]] = {key: [] for key in keys}
    seconds = dict.fromkeys(keys, 0.0)
    for probe in probes:
        own = {name: probe.using(method) for name, method in attributions.items()}
        for key, (metric, attribution) in keys.items():
            watch(key)
            began = time.perf_counter()
            part = metrics[metric].per_sample(probe if attribution is None else own[attribution])
            values[key].append(part.double().cpu().numpy())
            seconds[key] += time.perf_counter() - began
    return [
        Measurement(
            metric,
            attribution,
            metrics[metric].group,
            metrics[metric].point,
            metrics[metric].higher_is_better,
            np.concatenate(values[key]),
            seconds[key],
        )
        for key, (metric, attribution) in keys.items()
    ]
