"""Layer-wise relevance propagation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, TypeGuard

import torch
from torch import Tensor, nn

from xrobust.attributions.base import Attribution, Score
from xrobust.attributions.graph import LinearReader
from xrobust.attributions.hooks import described
from xrobust.attributions.lrp_rules import FIRST, FirstLayer, LinearMap, gamma_rule, ratio, scale_and_shift
from xrobust.attributions.parts import Weigh, in_parts
from xrobust.attributions.replay import ELEMENTWISE, MAX_POOLING, Call, recorded, replayed, taken, winners
from xrobust.errors import UserError, at_least, one_of
from xrobust.randomness import Generator


@dataclass(frozen=True, kw_only=True)
class LRP(Attribution):
    """R_i = Σ_k n_ik / (Σ_i n_ik + b_k + ε) · R_k, layer by layer from the logit to the pixels (Bach et al. 2015).

    The contributions n_ik are those of the γ rule (`lrp_rules.gamma_rule`): z_ik + γ·z_ik where z_ik has the sign of
    the sum z_k. γ = 0 gives the ε rule, ∞ the z⁺ rule. Relevance passes activations unchanged, goes to the winner in
    max pooling and in proportion through average pooling and residual sums. Batch norm is one layer with the
    convolution or dense layer before it; elsewhere the ε rule holds for it. What biases take is lost: without them,
    and for ε → 0, Σ_i R_i is the logit. Of another score than a logit, the start is f_k·∂s/∂f_k for each class k.

    Args:
        gamma: γ ≥ 0 of convolutions.
        dense_gamma: γ ≥ 0 of dense layers.
        epsilon: ε ≥ 0, as an absolute value with the sign of the sum.
        first: the rule of the layer that sees the (normalised) image: "z_box", "flat" or "w_squared", which give
            black pixels relevance, too; None for that of all others.

    Raises (when called):
        UserError: for a network with other than `nn.Linear`, `nn.Conv2d`, batch norm, elementwise activations and
            max pooling as modules, and operations that are linear in the image. It names the module.
    """

    demands: ClassVar[str] = "a gradient, each layer and activation as a module, and no attention or gates"

    gamma: float = 0.25
    dense_gamma: float = 0.0
    epsilon: float = 1e-6
    first: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("LRP", 0.0, gamma=self.gamma, dense_gamma=self.dense_gamma, epsilon=self.epsilon)
        if self.first is not None and self.first not in FIRST:
            raise one_of("LRP.first", self.first, [None, *FIRST])

    def attribute(
        self, model: nn.Module, x: Tensor, score: Score, create_graph: bool, generator: Generator | None
    ) -> Tensor:
        def explain(part: Tensor, rows: slice, weigh: Weigh) -> Tensor:
            with torch.set_grad_enabled(create_graph):
                logits, calls = recorded(model, part)
            propagation = _Propagation(self, model, part, calls)
            return propagation.run(weigh(logits), create_graph).to(x.dtype)

        return in_parts(explain, model, x, score, batch_size=self.batch_size, create_graph=create_graph)


@dataclass(frozen=True, eq=False)
class _Fed:
    """A linear layer, its input h in the recorded pass and its signal in the replay."""

    layer: LinearMap
    h: Tensor
    signal: Tensor
    gamma: float


class _Propagation:
    """The relevance of one batch.

    Relevance is value times gradient at each place of the replayed pass, R = h ⊙ G. At the first layer, whose h may be
    0 where R is not, the signal is the share that each input has in its own contributions, 1: its gradient is R.
    """

    def __init__(self, options: LRP, model: nn.Module, x: Tensor, calls: list[Call]):
        self.options, self.model, self.calls = options, model, calls
        self.first = next((i for i, call in enumerate(calls) if _is_linear(call.module)), len(calls))
        if self.first == len(calls):
            raise UserError("LRP needs a model with an nn.Linear or nn.Conv2d, this one has none")
        self.pixels = x.detach().requires_grad_()
        self.entry = self.pixels  # what the first layer is given in the replay
        self.shares = torch.ones_like(calls[self.first].input).requires_grad_()
        self.bounds = [] if options.first is None else [self.first_input(value) for value in (0.0, 1.0)]
        self.fed: dict[int, tuple[Tensor, _Fed]] = {}  # by the identity of a layer's output, which is kept alive

    def run(self, weights: Tensor, create_graph: bool) -> Tensor:
        """(N, C, H, W) from ∂s/∂logits, (N, K)."""
        reader = LinearReader()
        reader.follow(self.shares)
        logits = replayed(self.model, self.pixels, self.calls, self.stand_in, reader, "LRP")
        relevance, beside = torch.autograd.grad(
            logits, [self.shares, self.pixels], weights, create_graph=create_graph, retain_graph=True, allow_unused=True
        )
        if relevance is None or beside is not None:
            raise UserError("LRP needs a model in which one linear layer sees the image, and nothing else does")
        return self.on_pixels(relevance, create_graph)

    def on_pixels(self, relevance: Tensor, create_graph: bool) -> Tensor:
        """From the first layer's input to the image: each entry keeps its relevance when scaled, shifted or moved."""
        found, reach = (
            torch.autograd.grad(self.entry, self.pixels, r, retain_graph=True, create_graph=create_graph)[0]
            for r in (relevance, torch.ones_like(relevance))
        )
        found = found / reach.where(reach != 0, 1)
        lost = (found.flatten(1).sum(1) - relevance.flatten(1).sum(1)).abs()
        if (lost > 1e3 * torch.finfo(relevance.dtype).eps * relevance.flatten(1).abs().sum(1)).any():
            raise UserError("LRP needs a model whose first layer sees each pixel once, at most normalised or moved")
        return found

    def stand_in(self, number: int, signal: Tensor) -> Tensor | None:
        """The linear stand-in of a layer, applied to its signal; None for a layer that is linear already."""
        call, module = self.calls[number], self.calls[number].module
        if _is_linear(module):
            if number == self.first:
                self.entry, signal = signal, self.shares
            gamma = self.options.gamma if isinstance(module, nn.Conv2d) else self.options.dense_gamma
            return self.linear(_Fed(LinearMap.of(module), call.input, signal, gamma), call.output)
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            return None if number < self.first else self.batch_norm(call, signal)
        if any(True for _ in module.parameters()) and not isinstance(module, nn.PReLU):
            raise UserError(f"LRP has no rule for {described(self.model, call.path)}")
        if number < self.first:
            return None
        if isinstance(module, ELEMENTWISE):
            # A vanishing ε for 0/0: the layer below has its own.
            return signal * ratio(call.output, call.input, torch.finfo(call.input.dtype).eps ** 2)
        if isinstance(module, MAX_POOLING):
            return taken(signal, winners(module, call.input))
        return None

    def linear(self, fed: _Fed, z: Tensor) -> Tensor:
        """The stand-in of a linear layer whose output was z."""
        signal, epsilon = fed.signal, self.options.epsilon
        if signal is not self.shares:
            output = gamma_rule(fed.layer, fed.h, z, signal, fed.gamma, epsilon)
        elif self.options.first is None:
            output = gamma_rule(fed.layer, fed.h, z, fed.h * signal, fed.gamma, epsilon)
        else:
            rule, first = FIRST[self.options.first], FirstLayer(fed.layer, fed.h, *self.bounds)
            output = rule(first, signal) * ratio(z, rule(first, torch.ones_like(signal)), epsilon)
        self.fed[id(output)] = output, fed
        return output

    def batch_norm(self, call: Call, signal: Tensor) -> Tensor:
        """Batch norm: one layer with the linear one whose output it is given, or a layer of its own."""
        _, fed = self.fed.get(id(signal), (None, None))
        if fed is not None and call.output.dim() == fed.layer.weight.dim():
            return self.linear(replace(fed, layer=fed.layer.then(call.module)), call.output)
        scale, _ = scale_and_shift(call.module)
        own = ratio(call.output, call.output, self.options.epsilon)
        return signal * scale.view(-1, *[1] * (signal.dim() - 2)) * own

    def first_input(self, value: float) -> Tensor:
        """The first layer's input for an image of one value."""
        with torch.no_grad():
            _, calls = recorded(self.model, torch.full_like(self.pixels[:1], value, requires_grad=False))
        return calls[self.first].input


def _is_linear(module: nn.Module) -> TypeGuard[nn.Linear | nn.Conv2d]:
    """A dense layer or a convolution that computes what torch's does."""
    return type(module).forward in (nn.Linear.forward, nn.Conv2d.forward)
