"""Classifiers of torchvision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xrobust.errors import UserError, at_least
from xrobust.models.wrapped import WrappedModel, unknown_name


class TorchvisionModel(WrappedModel):
    """A torchvision classifier with its own activations and initial weights, and normalisation inside.

    Args:
        name: a classifier in `torchvision.models` ("resnet50").
        weights: None, or a name of pretrained weights ("DEFAULT"), which are downloaded.
        num_classes: K; pretrained weights come with their own number of classes.
        in_channels: 3.
        image_size: H = W.
        mean, std: normalisation for each channel, or None for raw pixels.
        options: further arguments of torchvision's builder, e.g. {"image_size": 32} for a vision transformer.

    Shapes: (N, 3, H, W) in [0, 1] → (N, K).

    Raises:
        UserError: for an unknown name, weights or option, other than 3 channels, images that the network does
            not accept, or pretrained weights for another number of classes.
    """

    def __init__(
        self,
        *,
        name: str,
        weights: str | None = None,
        num_classes: int,
        in_channels: int,
        image_size: int,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        options: Mapping[str, Any] | None = None,
    ):
        try:
            from torchvision import models
        except ImportError as error:
            raise UserError(f"model.name={name!r} needs torchvision: pip install torchvision") from error
        at_least("model", 1, num_classes=num_classes, image_size=image_size)
        if in_channels != 3:
            raise UserError(f"model.in_channels={in_channels}, but torchvision's networks take 3 channels: use timm")
        known = models.list_models(module=models)
        if name not in known:
            raise unknown_name(name, known, "torchvision")
        try:
            network = models.get_model(name, weights=weights, num_classes=num_classes, **(options or {}))
        except (TypeError, ValueError, KeyError) as error:
            given = f"weights={weights}, num_classes={num_classes}, options={dict(options or {})}"
            raise UserError(f"model.name={name!r} cannot be built with {given}: {error}") from error
        if getattr(network, "aux_logits", False):
            raise UserError(f"model.name={name!r} returns auxiliary logits in training, choose another network")
        super().__init__(
            network,
            name=name,
            num_classes=num_classes,
            in_channels=in_channels,
            image_size=image_size,
            mean=mean,
            std=std,
        )

    @classmethod
    def without_download(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        if not arguments.get("weights"):
            return dict(arguments)
        options = arguments.get("options") or {}
        if arguments["name"] in ("googlenet", "inception_v3"):  # as their pretrained weights have it
            options = {"transform_input": True, "aux_logits": False, "init_weights": False, **options}
        return {**arguments, "weights": None, "options": options}
