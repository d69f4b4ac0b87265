"""Quantus at work on the images and maps of a probe, called so that it measures what xrobust measures.

Quantus is imported when it is put to work, so that it may be missing. It takes arrays, and explains anew wherever it
needs the map of another image or network: by its own gradient, which is captum's, or by an attribution of xrobust.

Two of its options are left alone, and done here from what it returns without them: the area under a curve, because
`return_auc_per_sample` calls a function that NumPy 2.4 no longer has, and the mean over random networks, because
`return_average_correlation` counts the trained network, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from xrobust.attributions import Attribution
from xrobust.metrics import Probe, magnitude
from xrobust.metrics.model_randomisation import layers_to_randomise, randomised_networks

Explainer = Callable[..., np.ndarray]
QUIET = {"disable_warnings": True}
NEIGHBOURS = 10


class Quantus:
    """The metrics of Quantus on a probe, as those of xrobust give them: (N,), float64.

    Args:
        probe: model, images, labels, maps.
        explained_by: what makes the maps that a metric asks for besides; none means Quantus's own gradient.
    """

    def __init__(self, probe: Probe, explained_by: Attribution | None = None):
        import quantus

        self.quantus, self.probe = quantus, probe
        self.x, self.y, self.signed_map = probe.x.numpy(), probe.y.numpy(), probe.map.numpy()
        self.map = magnitude(probe.map)[:, None].numpy()
        gradient = {"explain_func": quantus.explain, "explain_func_kwargs": {"method": "Gradient", "reduce_axes": ()}}
        self.explanation = gradient if explained_by is None else {"explain_func": as_explainer(explained_by)}

    @cached_property
    def neighbours(self) -> list[np.ndarray]:
        """The points that `MaxSensitivity(NEIGHBOURS)` of xrobust draws: each (N, d)."""
        streams = self.probe.streams("neighbours")
        return [self.probe.threat.random_start(self.probe.x, streams).flatten(1).numpy() for _ in range(NEIGHBOURS)]

    def sparseness(self) -> Tensor:
        return values(self._call(self.quantus.Sparseness(**QUIET), self.map))

    def max_sensitivity(self) -> Tensor:
        """At our points, which it need not draw."""
        points = iter(self.neighbours)
        metric = self.quantus.MaxSensitivity(
            nr_samples=NEIGHBOURS, perturb_func=lambda **_: next(points), abs=False, **QUIET
        )
        return values(self._call(metric, self.signed_map, **self.explanation))

    def average_sensitivity(self) -> Tensor:
        """At its own points in the Linf ball, projected onto [0, 1] as ours are."""
        metric = self.quantus.AvgSensitivity(
            perturb_func=self._clipped_noise, lower_bound=self.probe.threat.radius, **QUIET
        )
        return values(self._call(metric, self.signed_map, **self.explanation))

    def _clipped_noise(self, arr: np.ndarray, **options: Any) -> np.ndarray:
        return self.quantus.batch_uniform_noise(arr, **options).clip(0, 1)

    def pixel_flipping(self, features_in_step: int = 1) -> Tensor:
        """∫ p_y, by a trapezoid rule over its curve, to which the intact image is put in front."""
        metric = self.quantus.PixelFlipping(features_in_step=features_in_step, normalise=False, **QUIET)
        curve = values(self._call(metric, self.map))
        intact = self.probe.logits.softmax(1).gather(1, self.probe.y[:, None])
        curve = torch.cat([intact.double(), curve], 1)
        return torch.trapezoid(curve, dim=1) / (curve.shape[1] - 1)

    def road(self, **removed: Any) -> Tensor:
        metric = self.quantus.ROAD(normalise=False, **removed, **QUIET)
        metric.custom_postprocess = lambda **_: None  # it would keep the means of the first batch alone
        (kept,) = self._call(metric, self.map, y=self.probe.prediction.numpy())
        return values(kept).mean(1)

    def mprt(self) -> Tensor:
        """The mean over our random networks, one for each layer from the logits down."""
        model = self.quantus.helpers.model.pytorch_model.PyTorchModel
        with mock.patch.object(model, "get_random_layer_generator", self._random_networks):
            metric = self.quantus.MPRT(normalise=False, **QUIET)
            similar = self._call(metric, self.map, **self.explanation)
        return values([each for name, each in similar.items() if name != "original"]).mean(0)

    def _random_networks(self, **_: Any) -> Iterator[tuple[str, nn.Module]]:
        steps = len(layers_to_randomise(self.probe.model))
        networks = randomised_networks(self.probe.model, self.probe.seed, top_down=True, steps=steps)
        return ((str(step), network) for step, network in enumerate(networks))

    def _call(self, metric: Callable[..., Any], maps: np.ndarray, y: np.ndarray | None = None, **options: Any) -> Any:
        """All images in one batch; in copies, since some metrics change what they are given."""
        return metric(
            model=self.probe.model,
            x_batch=self.x.copy(),
            y_batch=self.y if y is None else y,
            a_batch=maps.copy(),
            batch_size=len(self.x),
            **options,
        )


def as_explainer(method: Attribution) -> Explainer:
    """An attribution in the words of Quantus."""

    def explain(model: nn.Module, inputs: np.ndarray, targets: np.ndarray, **_: Any) -> np.ndarray:
        return method(model, torch.from_numpy(inputs).float(), torch.from_numpy(targets)).numpy()

    return explain


def values(given: Iterable[Any]) -> Tensor:
    return torch.from_numpy(np.asarray(given, dtype=np.float64))
