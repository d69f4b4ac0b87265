"""Attention rollout."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from xrobust.attributions.base import Attribution, Score, slices
from xrobust.attributions.maps import over_channels, resized
from xrobust.errors import UserError
from xrobust.frame import logits_of
from xrobust.randomness import Generator


@dataclass(frozen=True, kw_only=True)
class AttentionRollout(Attribution):
    """a = the row of the class token in Π_l (½A_l + ½I), upper layers to the left (Abnar & Zuidema 2020).

    A_l is the attention of layer l, the mean over its heads, and ½I stands for its residual path. The h × w entries
    of the patches are interpolated bilinearly to (H, W); each of the C channels has an equal share. Without a token
    before the patches, the mean of all rows is taken, as such networks take the mean of their tokens.

    *Not class-specific*: the target is ignored, and the map is never negative.

    Class attributes:
        explains: the kind of network that the method is for, "attention".

    Raises (when called):
        UserError: if the model is no vision transformer with attention between all tokens, by
            `nn.MultiheadAttention` (torchvision) or timm's attention modules.
    """

    explains: ClassVar[str] = "attention"
    demands: ClassVar[str] = "a vision transformer"

    def attribute(
        self, model: nn.Module, x: Tensor, score: Score, create_graph: bool, generator: Generator | None
    ) -> Tensor:
        if not len(x):  # for which nn.MultiheadAttention has no weights
            return torch.zeros_like(x)
        parts = [x] if create_graph else [x[rows] for rows in slices(len(x), self.batch_size)]
        with torch.set_grad_enabled(create_graph):
            return torch.cat([over_channels(resized(_rollout(model, part), part), part) for part in parts])


def _rollout(model: nn.Module, x: Tensor) -> Tensor:
    """(N, h, w)."""
    with attention(model) as seen:
        logits_of(model, x)
    matrices = seen.matrices
    if not matrices or seen.grid is None or seen.calls != len(matrices):
        raise UserError(
            "AttentionRollout needs a vision transformer whose attention is in nn.MultiheadAttention or timm's "
            "modules, and whose patches come from a convolution"
        )
    (h, w), tokens = seen.grid, matrices[0].shape[-1]
    if tokens < h * w or any(matrix.shape != (len(x), tokens, tokens) for matrix in matrices):
        raise UserError(
            f"AttentionRollout needs attention between all of the same tokens in each layer, {h} × {w} patches among "
            f"them; the matrices are {', '.join(sorted({str(tuple(matrix.shape)) for matrix in matrices}))}"
        )
    rows = torch.eye(tokens, dtype=x.dtype, device=x.device)
    row = (rows[0] if tokens > h * w else rows.mean(0)).expand(len(x), 1, tokens)
    for matrix in reversed(matrices):
        row = (row + row @ matrix.to(x.dtype)) / 2
    return row[:, 0, -h * w :].unflatten(1, (h, w))


@dataclass
class Attention:
    """What a forward pass shows of a transformer's attention.

    Args:
        matrices: (N, T, T) for each layer in order, the mean over the heads; row i says what token i attends to.
        grid: (h, w), the patches: the size of what the last convolution before the first attention puts out.
        calls: of attention modules, as many as matrices unless one does not show its own.
    """

    matrices: list[Tensor] = field(default_factory=list)
    grid: tuple[int, int] | None = None
    calls: int = 0


@contextmanager
def attention(model: nn.Module) -> Iterator[Attention]:
    """Collects the attention of the forward passes inside; fused attention is off there, and back afterwards."""
    seen = Attention()

    def patches(module: nn.Module, inputs: Any, output: Tensor) -> None:
        if not seen.matrices:
            seen.grid = (output.shape[-2], output.shape[-1])

    def called(module: nn.Module, inputs: Any, output: Any) -> None:
        seen.calls += 1

    def ask_for_weights(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, {**kwargs, "need_weights": True, "average_attn_weights": True}

    def returned(module: nn.Module, inputs: Any, output: tuple[Tensor, Tensor]) -> None:
        seen.matrices.append(output[1])

    def dropped(module: nn.Module, inputs: Any, output: Tensor) -> None:
        seen.matrices.append(output.mean(1))

    with ExitStack() as stack:
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                handles = [module.register_forward_hook(patches)]
            elif isinstance(module, nn.MultiheadAttention):
                handles = [
                    module.register_forward_pre_hook(ask_for_weights, with_kwargs=True),
                    module.register_forward_hook(returned),
                    module.register_forward_hook(called),
                ]
            elif isinstance(getattr(module, "fused_attn", None), bool) and hasattr(module, "attn_drop"):
                # timm: unfused, the softmax goes through the dropout of the attention, (N, heads, T, T).
                stack.callback(setattr, module, "fused_attn", module.fused_attn)
                module.fused_attn = False  # type: ignore[assignment]
                handles = [
                    module.attn_drop.register_forward_hook(dropped),  # type: ignore[union-attr]
                    module.register_forward_hook(called),
                ]
            else:
                continue
            for handle in handles:
                stack.callback(handle.remove)
        yield seen
