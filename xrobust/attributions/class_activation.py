"""What class activation maps share: the layer, its feature maps and their gradients."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from xrobust.attributions.base import Attribution, Score
from xrobust.attributions.hooks import hooked
from xrobust.attributions.maps import has_places, over_channels, resized
from xrobust.attributions.parts import Weigh, in_parts
from xrobust.attributions.units import find_layer
from xrobust.errors import UserError
from xrobust.frame import logits_of
from xrobust.randomness import Generator

# torch has no common base of its pooling layers.
POOLINGS = tuple(getattr(nn.modules.pooling, name) for name in nn.modules.pooling.__all__)


@dataclass(frozen=True, kw_only=True)
class ClassActivation(Attribution):
    """The base of ReLU(Σ_k w_k A_k): a weighted sum of a layer's feature maps A, (N, K, h, w).

    The sum is interpolated bilinearly to (H, W); each of the C channels of the result has an equal share of it, so
    that the channels sum to it. It is never negative, and as coarse as the layer.

    Args:
        layer: dotted path of a module as in `model.named_modules()`, its last call if there are several; None for
            the module that `last_feature_map` finds. The output may be tokens (N, h·w, K), or (N, 1 + h·w, K) with a
            class token first, if h × w has the proportions of the image.

    Raises (when called):
        UserError: if there is no such layer, or its output is no feature map.
    """

    demands: ClassVar[str] = "a gradient, and a layer with feature maps"

    layer: str | None = None

    @abstractmethod
    def weights(self, features: Tensor, gradients: Tensor) -> Tensor:
        """w from A and ∂s/∂A, both (N, K, h, w): (N, K)."""

    def attribute(
        self, model: nn.Module, x: Tensor, score: Score, create_graph: bool, generator: Generator | None
    ) -> Tensor:
        return over_channels(self.activation_map(model, x, score, create_graph), x)

    def activation_map(
        self, model: nn.Module, x: Tensor, score: Score, create_graph: bool = False, owner: str | None = None
    ) -> Tensor:
        """ReLU(Σ_k w_k A_k) in the size of the images, (N, H, W); errors name the owner of `layer`, if not this."""
        place = f"{owner or type(self).__name__}.layer"
        layer = last_feature_map(model, x, place) if self.layer is None else self.layer
        find_layer(model, layer)

        def explain(part: Tensor, rows: slice, weigh: Weigh) -> Tensor:
            logits, output = _with_output(model, part, layer, place, keep_graph=create_graph)
            (gradient,) = torch.autograd.grad(
                logits, output, weigh(logits), create_graph=create_graph, materialize_grads=True
            )
            output = output if create_graph else output.detach()
            features, gradients = (_feature_map(t, part, f"{place}={layer!r}").to(x.dtype) for t in (output, gradient))
            weights = self.weights(features, gradients)
            return resized((weights[:, :, None, None] * features).sum(1).relu(), part)

        return in_parts(explain, model, x, score, batch_size=self.batch_size, create_graph=create_graph)


def last_feature_map(model: nn.Module, x: Tensor, place: str) -> str:
    """The path of the last module that puts out a feature map, other than by pooling; found by a forward pass.

    A feature map is (N, K, h, w) with more than one pixel and the proportions of the image.

    Raises:
        UserError: if there is none, or tokens come after it, as in vision transformers.
    """
    found: str | None = None
    pooled: list[Tensor] = []  # a container may put out what a pooling inside it does

    def look(path: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal found
        if isinstance(module, POOLINGS) and isinstance(output, Tensor):
            pooled.append(output)
        if not isinstance(output, Tensor) or any(output is other for other in pooled):
            return
        if has_places(output, image):
            found = path
        elif output.dim() == 3 and output.shape[1] > 1:
            found = None

    image = x[:1]
    with torch.no_grad(), hooked(model, look):
        logits_of(model, image)
    if found is None:
        raise UserError(f"{place} must name a module, because the model's last feature map is one pixel, or tokens")
    return found


def _with_output(model: nn.Module, x: Tensor, layer: str, place: str, keep_graph: bool) -> tuple[Tensor, Tensor]:
    """The logits, and the layer's output on which they depend; without `keep_graph` the graph begins there."""
    outputs: list[Tensor] = []

    def note(path: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Tensor | None:
        if path != layer:
            return None
        if not isinstance(output, Tensor):
            raise UserError(f"{place}={layer!r} puts out {type(output).__name__}, not one tensor")
        if not (keep_graph and output.requires_grad):
            output = output.detach().requires_grad_()
        outputs.append(output)
        return output.clone()  # what follows may write into it

    with hooked(model, note):
        logits = logits_of(model, x)
    if not outputs:
        raise UserError(f"{place}={layer!r} is not used in the forward pass")
    return logits, outputs[-1]


def _feature_map(output: Tensor, x: Tensor, place: str) -> Tensor:
    """A layer's output as (N, K, h, w)."""
    if has_places(output, x):
        return output
    if output.dim() == 3:
        height, width = x.shape[-2:]
        for first in (0, 1):  # without or with a class token
            tokens = output[:, first:]
            h = round((tokens.shape[1] * height / width) ** 0.5)
            if h > 0 and h * (w := tokens.shape[1] // h) == tokens.shape[1] and h * width == w * height and h * w > 1:
                return tokens.transpose(1, 2).unflatten(2, (h, w))
    raise UserError(
        f"{place} puts out {tuple(output.shape)}, which is no feature map (N, K, h, w) or (N, h·w, K) "
        f"of images of {x.shape[-2]} × {x.shape[-1]}"
    )
