"""What the wrappers of other libraries' networks share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from xrobust.errors import UserError
from xrobust.models.normalize import Normalize


class WrappedModel(nn.Module):
    """logits = network((x − mean) / std), for a network from elsewhere.

    In-place activations are made out-of-place, because attributions hook what goes into them.

    Raises:
        UserError: if one image of the data's shape does not come out as K logits.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        name: str,
        num_classes: int,
        in_channels: int,
        image_size: int,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
    ):
        super().__init__()
        self.normalize = Normalize(mean, std, in_channels)
        self.network = network
        for module in network.modules():
            if hasattr(module, "inplace"):
                module.inplace = False  # type: ignore[assignment]
        _check_shapes(network, name, (1, in_channels, image_size, image_size), (1, num_classes))

    @classmethod
    def without_download(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments for the same architecture with random weights, where they ask for pretrained ones."""
        return dict(arguments)

    def forward(self, x: Tensor) -> Tensor:
        return self.network(self.normalize(x))


def unknown_name(name: str, known: Iterable[str], library: str) -> UserError:
    """The error for a name that the library does not know."""
    close = get_close_matches(name, known, 3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"see {library}'s list_models()"
    return UserError(f"model.name={name!r} is not a classifier of {library}; {hint}")


@torch.no_grad()
def _check_shapes(network: nn.Module, name: str, images: tuple[int, ...], logits: tuple[int, int]) -> None:
    """One forward pass in eval mode, which draws no random numbers and changes no statistics."""
    network.eval()
    try:
        shape = tuple(network(torch.zeros(images)).shape)
    except (RuntimeError, ValueError, AssertionError) as error:
        raise UserError(f"model.name={name!r} does not accept images of shape {images[1:]}: {error}") from error
    network.train()
    if shape != logits:
        raise UserError(f"model.name={name!r} returns {shape[1:]} for an image where {logits[1]} logits are wanted")
