"""The frame in which a model is attacked or explained: evaluation as it should be, and no trace of it afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def without_tf32() -> Iterator[None]:
    """Float32 on a GPU in its own precision, not with the ten bits of a TF32 mantissa; afterwards as before."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.fp32_precision, cudnn.allow_tf32
    try:
        matmul.fp32_precision, cudnn.allow_tf32 = "ieee", False
        yield
    finally:
        matmul.fp32_precision, cudnn.allow_tf32 = before


@contextmanager
def untouched(
    model: nn.Module,
    x: Tensor,
    *,
    train_mode: bool = False,
    autocast: bool = False,
    parameter_gradients: bool = False,
    many_passes: bool = False,
) -> Iterator[None]:
    """Autograd on, inference mode off, every submodule in one mode; on leaving, everything is as it was.

    Each submodule gets the mode back that it had, each parameter its `requires_grad` flag. In training mode, batch-norm
    statistics and the random state that dropout draws from are put back, too.

    Args:
        model: the network.
        x: the images, for their device.
        train_mode: training mode inside, instead of evaluation mode.
        autocast: keep the caller's autocast; otherwise it is off.
        parameter_gradients: leave the parameters differentiable. Otherwise they are constants inside: `.grad` cannot
            change, and autograd is spared a third of the backward pass.
        many_passes: lay the kernels of convolutions out as the device is fastest with, which costs a copy of them.
    """
    modes = [(module, module.training) for module in model.modules()]
    constants = [] if parameter_gradients else [p for p in model.parameters() if p.requires_grad]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()] if train_mode else []
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        if not autocast:
            stack.enter_context(torch.autocast(x.device.type, enabled=False))
        if train_mode:
            stack.enter_context(torch.random.fork_rng([x.device] if x.device.type == "cuda" else []))
        if many_passes:
            stack.enter_context(fast_kernels(model, x.device))
        try:
            model.train(train_mode)
            for parameter in constants:
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter in constants:
                parameter.requires_grad_(True)
            for module, training in modes:
                module.training = training
            for buffer, before in buffers:
                buffer.data.copy_(before)


@contextmanager
def fast_kernels(model: nn.Module, device: torch.device) -> Iterator[None]:
    """The kernels of convolutions, laid out so that a CPU need not reorder them in every pass; a copy of them.

    Elsewhere than on a CPU, and for kernels that are so already, nothing changes.
    """
    kernels = [p for p in model.parameters() if p.dim() == 4 and p.dtype in (torch.float32, torch.bfloat16)]
    # By stride: with one input channel, PyTorch calls either layout contiguous, and follows the strides.
    slow = [(p, p.data) for p in kernels if device.type == "cpu" and p.stride(1) != 1]
    try:
        for parameter, kernel in slow:
            parameter.data = torch.empty_like(kernel, memory_format=torch.channels_last).copy_(kernel)
        yield
    finally:
        for parameter, kernel in slow:
            parameter.data = kernel


def logits_of(model: nn.Module, x: Tensor) -> Tensor:
    """f(x) in the precision of x, whatever the precision of the weights: (N, ...) → (N, K)."""
    weight = next((p for p in model.parameters() if p.is_floating_point()), x)
    return model(x.to(weight.dtype)).to(x.dtype)


def predictions(logits: Tensor) -> Tensor:
    """The classes argmax_k z_k, (N, K) → (N,); −1, which no label is, where a logit is not a number."""
    return logits.argmax(1).masked_fill(logits.isnan().any(1), -1)


def hard_labels(y: Tensor) -> Tensor:
    """The most probable class of each image: (N,) int64 or (N, K) float → (N,) int64."""
    return y.argmax(1) if y.is_floating_point() else y
