"""Operator norms by power iteration, for training: estimates from below that can be differentiated."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Size, Tensor

from xrobust.certification.rules.convolution import Conv2d
from xrobust.certification.rules.linear import Linear
from xrobust.randomness import mix


class PowerIteration:
    """‖A‖₂ ≈ ‖A u‖, with u the leading right singular vector as far as it has converged.

    u ← AᵀA u / ‖AᵀA u‖ is carried from step to step, because weights change little; it is a constant in the
    derivative, as it may be where A u is largest. In float32 at least, whatever the autocast.

    Args:
        iterations: for each call.
        start: iterations for a layer's first call, from a random vector.
        seed: of that vector.
    """

    def __init__(self, iterations: int = 10, start: int = 200, seed: int = 0):
        self.iterations, self.start, self.seed = iterations, start, seed
        self.vectors: dict[int, Tensor] = {}  # u for each node, (1, *input shape)

    def __call__(self, node: int, operation: Linear | Conv2d, shape: Size) -> Tensor:
        """The norm of a layer, a scalar."""
        weight = operation.weight
        with torch.autocast(weight.device.type, enabled=False):
            full = weight.to(torch.promote_types(weight.dtype, torch.float32))
            operation = replace(operation, weight=full, bias=None)
            vector = self._vector(node, operation, shape)
            return torch.linalg.vector_norm(operation.linear(vector))

    @torch.no_grad()
    def _vector(self, node: int, operation: Linear | Conv2d, shape: Size) -> Tensor:
        weight = operation.weight
        known = self.vectors.get(node)
        vector = self._random(node, shape).to(weight) if known is None else known.to(weight)
        for _ in range(self.start if known is None else self.iterations):
            moved = operation.transpose(operation.linear(vector))[0]
            length = torch.linalg.vector_norm(moved)
            vector = torch.where(length > 0, moved / length, vector)  # weights of 0 leave it as it is
        self.vectors[node] = vector
        return vector

    def _random(self, node: int, shape: Size) -> Tensor:
        generator = torch.Generator().manual_seed(mix(self.seed, node))
        vector = torch.randn(1, *shape, generator=generator)
        return vector / torch.linalg.vector_norm(vector)
