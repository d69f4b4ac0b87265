"""Classifiers of timm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xrobust.errors import UserError, at_least
from xrobust.models.wrapped import WrappedModel, unknown_name


class TimmModel(WrappedModel):
    """A timm classifier with its own activations and initial weights, and normalisation inside.

    Args:
        name: one of `timm.list_models()`, with or without a weights tag ("resnet18", "resnet18.a1_in1k").
        pretrained: download weights; timm fits the first and last layer to C channels and K classes.
        num_classes: K.
        in_channels: C.
        image_size: H = W.
        mean, std: normalisation for each channel, or None for raw pixels.
        options: further arguments of `timm.create_model`, e.g. {"img_size": 32} for a vision transformer.

    Shapes: (N, C, H, W) in [0, 1] → (N, K).

    Raises:
        UserError: for an unknown name or option, or images that the network does not accept.
    """

    def __init__(
        self,
        *,
        name: str,
        pretrained: bool = False,
        num_classes: int,
        in_channels: int,
        image_size: int,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        options: Mapping[str, Any] | None = None,
    ):
        try:
            import timm
        except ImportError as error:
            raise UserError(f"model.name={name!r} needs timm: pip install timm") from error
        at_least("model", 1, num_classes=num_classes, in_channels=in_channels, image_size=image_size)
        if not timm.is_model(name):
            raise unknown_name(name, timm.list_models(), "timm")
        try:
            network = timm.create_model(
                name, pretrained=pretrained, num_classes=num_classes, in_chans=in_channels, **(options or {})
            )
        except (TypeError, ValueError, RuntimeError, AssertionError) as error:
            given = f"pretrained={pretrained}, in_channels={in_channels}, options={dict(options or {})}"
            raise UserError(f"model.name={name!r} cannot be built with {given}: {error}") from error
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
        return {**arguments, "pretrained": False}
