"""Copies of a network that lose what it has learned, layer by layer."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import torch
from torch import nn

from xrobust.errors import UserError
from xrobust.randomness import mix


def layers_to_randomise(model: nn.Module) -> list[nn.Module]:
    """The modules that hold learned values of their own, in the order of definition.

    Those with parameters, and those that can `reset_parameters` (batch norm without weights still has statistics).
    """
    return [
        module
        for module in model.modules()
        if hasattr(module, "reset_parameters") or next(module.parameters(recurse=False), None) is not None
    ]


def randomise(layer: nn.Module, seed: int) -> None:
    """Replace what a layer has learned by a fresh start, in place.

    `reset_parameters` draws it as PyTorch does before training, batch statistics included; the parameters of a module
    without that method (class tokens, layer scales) become N(0, r²), r the root mean square of what they were. All
    draws are made on the CPU in float32, so that devices and precisions agree, and the global random state is
    afterwards as before.
    """
    with torch.inference_mode(False), torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # `torch.manual_seed` would touch the GPUs' generators, too
        if hasattr(layer, "reset_parameters"):
            fresh: Any = deepcopy(layer).to("cpu", torch.float32)
            fresh.reset_parameters()
            layer.load_state_dict(fresh.state_dict())
        else:
            for parameter in layer.parameters(recurse=False):
                size = parameter.float().square().mean().sqrt()
                parameter.copy_(size * torch.randn(parameter.shape).to(parameter.device))


def randomised_networks(model: nn.Module, seed: int, *, top_down: bool, steps: int) -> Iterator[nn.Module]:
    """Copies of the model with more and more layers randomised, the last with all of them.

    The values that a layer gets depend on the seed and its place in the model alone. The model is not among the
    copies, nor changed; each copy is good until the next is asked for.

    Args:
        model: the trained network.
        seed: of the new values.
        top_down: from the logits to the image, or else from the image to the logits, in the order of definition.
        steps: how many copies, each with an equal share of the layers more; at most one for each layer.
    """
    with torch.inference_mode(False):
        network = deepcopy(model)
    layers = list(enumerate(layers_to_randomise(network)))
    if not layers:
        raise UserError(f"a randomisation test needs a model with parameters, {type(model).__name__} has none")
    if top_down:
        layers.reverse()
    steps = min(steps, len(layers))
    for step in range(steps):
        for place, layer in layers[step * len(layers) // steps : (step + 1) * len(layers) // steps]:
            randomise(layer, mix(seed, zlib.crc32(b"parameters"), place))
        yield network


def randomised_network(model: nn.Module, seed: int) -> nn.Module:
    """A copy of the model with all layers randomised; otherwise see `randomised_networks`."""
    return next(randomised_networks(model, seed, top_down=True, steps=1))


def untrained_network(model: nn.Module, seed: int) -> nn.Module:
    """`randomised_network` with other values: a randomisation test of the same seed changes them."""
    return randomised_network(model, mix(seed, zlib.crc32(b"untrained")))
