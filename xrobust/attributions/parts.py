"""Explaining a batch part by part, where a method needs more of the network than its input gradient."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from xrobust.attributions.base import Score, input_gradient, slices
from xrobust.frame import logits_of

Weigh = Callable[[Tensor], Tensor]
"""The logits of a part, (n, K) → ∂s/∂logits, (n, K)."""


def in_parts(
    explain: Callable[[Tensor, slice, Weigh], Tensor],
    model: nn.Module,
    x: Tensor,
    score: Score,
    *,
    batch_size: int,
    create_graph: bool,
) -> Tensor:
    """explain(x[rows], rows, weigh) for internal batches of at most `batch_size` images, put together again.

    By the chain rule a part needs to know of the score only how it depends on the part's logits: `weigh` says that. A
    score sees the logits of all samples, so that with several parts the logits come first, in a pass of their own.
    With `create_graph` there is one part, whose weights are differentiable, too.
    """

    def weigh(logits: Tensor) -> Tensor:
        points = (logits if create_graph else logits.detach())[None]
        # The logits as the input of a network that does nothing.
        return input_gradient(nn.Identity(), points, score, batch_size=max(1, len(logits)), create_graph=create_graph)[
            0
        ]

    if create_graph or len(x) <= batch_size:
        return explain(x, slice(None), weigh)
    parts = slices(len(x), batch_size)
    with torch.no_grad():
        logits = torch.cat([logits_of(model, x[rows]) for rows in parts])
    weights = weigh(logits)

    def explained(rows: slice) -> Tensor:
        return explain(x[rows], rows, lambda _: weights[rows])

    return torch.cat([explained(rows) for rows in parts])
