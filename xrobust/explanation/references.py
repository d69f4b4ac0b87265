"""What to compare scores with: a network that has learned nothing, and maps that ignore the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from xrobust.attributions import Attribution, EdgeDetector, RandomMap
from xrobust.explanation.measurement import Measurement
from xrobust.explanation.suite import Watch, measure
from xrobust.metrics import ExplanationMetric, Probe
from xrobust.metrics.model_randomisation import untrained_network

MAPS: dict[str, Attribution] = {"random_map": RandomMap(), "edge_detector": EdgeDetector()}
UNTRAINED = "untrained"
REFERENCE_NAMES = (UNTRAINED, *MAPS)


def reference_measurements(
    probes: Sequence[Probe],
    attributions: Mapping[str, Attribution],
    metrics: Mapping[str, ExplanationMetric],
    watch: Watch = lambda key: None,
) -> dict[str, list[Measurement]]:
    """By reference, the same metrics on the same images.

    "untrained": the attributions of a network with fresh weights. "random_map" and "edge_detector": of the trained
    network, but with noise, or the edges of the image, in place of its maps; the metrics of the model alone are left
    out there.
    """
    fresh = untrained_network(probes[0].model, probes[0].seed)
    untrained = [replace(probe, model=fresh, shared={}) for probe in probes]
    of_maps = {name: metric for name, metric in metrics.items() if metric.uses_attribution}
    return {
        UNTRAINED: measure(untrained, attributions, metrics, watch),
        **{name: measure(probes, {name: method}, of_maps, watch) for name, method in MAPS.items()},
    }
