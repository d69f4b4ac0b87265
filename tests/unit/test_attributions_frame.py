"""What attributions owe that reach into the network or ask it often: no trace, bounded batches, precision."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from xrobust.attributions import (
    LRP,
    AttentionRollout,
    Attribution,
    Deconvnet,
    DeepLift,
    FullGrad,
    GradCAM,
    GradCAMPlusPlus,
    GuidedBackprop,
    GuidedGradCAM,
    KernelShap,
    Lime,
    Occlusion,
    UniformImages,
)
from xrobust.randomness import SampleStreams

METHODS = [
    GuidedBackprop(),
    Deconvnet(),
    GradCAM(),
    GradCAMPlusPlus(),
    GuidedGradCAM(),
    FullGrad(),
    DeepLift(baseline=UniformImages()),
    LRP(),
    LRP(first="z_box"),
    AttentionRollout(),
    Occlusion(baseline=UniformImages()),
    Lime(grid=2, samples=20),
    KernelShap(grid=2, samples=8),
]
named = pytest.mark.parametrize("method", METHODS, ids=lambda method: f"{type(method).__name__}")


def network(method: Attribution, dtype: torch.dtype = torch.float32) -> nn.Module:
    """What the method explains, for 8 × 8 RGB images, in training mode, with dropout and an in-place ReLU."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        if isinstance(method, AttentionRollout):
            shape = {"num_layers": 2, "num_heads": 2, "hidden_dim": 8, "mlp_dim": 8}
            return VisionTransformer(8, 4, **shape, num_classes=4, attention_dropout=0.5).to(dtype)
        model = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Dropout(0.5),
            nn.Flatten(),
            nn.Linear(64, 6),
            nn.ReLU(),
            nn.Linear(6, 4),
        )
        model[1].running_mean.uniform_()
    return model.to(dtype)


def batch(count: int = 7, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 3, 8, 8, generator=generator, dtype=torch.float64).to(dtype), torch.arange(count) % 4


def traces(model: nn.Module) -> list[object]:
    """Everything that an attribution might leave behind in a model."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    of_modules = [
        (m.training, getattr(m, "inplace", None), set(vars(m)), *(len(getattr(m, name)) for name in hooks))
        for m in model.modules()
    ]
    return [of_modules, [(p.requires_grad, p.grad) for p in model.parameters()], torch.get_rng_state().tolist()]


class TestNoTrace:
    @named
    def test_model_images_and_random_state_are_as_before(self, method: Attribution):
        model, (x, y) = network(method), batch()
        before, images = traces(model), x.clone()
        state = {name: value.clone() for name, value in model.state_dict().items()}
        method(model, x, y)
        assert traces(model) == before and torch.equal(x, images)
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())

    @named
    def test_also_after_an_error_in_the_model(self, method: Attribution):
        model, (x, y) = network(method), batch()

        class Broken(Exception):
            pass

        def fail(*_: object) -> None:
            raise Broken

        handle = list(model.modules())[-1].register_forward_hook(fail)
        before = traces(model)
        with pytest.raises(Broken):
            method(model, x, y)
        assert traces(model) == before
        handle.remove()

    @named
    @pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
    def test_works_where_gradients_are_off(self, method: Attribution, context):
        model, (x, y) = network(method), batch()
        expected = method(model, x, y)
        with context():
            found = method(model, x.clone(), y.clone())
        torch.testing.assert_close(found, expected)


class TestBatches:
    @named
    @pytest.mark.parametrize("batch_size", [1, 3])
    def test_the_internal_batch_changes_nothing_and_bounds_what_the_model_sees(self, method, batch_size):
        model, (x, y) = network(method, torch.float64), batch(dtype=torch.float64)
        expected = method(model, x, y)
        seen = []
        model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
        torch.testing.assert_close(replace(method, batch_size=batch_size)(model, x, y), expected)
        assert max(seen) <= batch_size

    @named
    def test_a_score_may_hold_a_value_for_each_sample(self, method: Attribution):
        model, (x, _) = network(method, torch.float64), batch(dtype=torch.float64)
        weights = torch.linspace(1, 2, 28, dtype=x.dtype).view(7, 4)
        whole = replace(method, batch_size=3)(model, x, lambda logits: (weights * logits).sum(1))
        one = method(model, x[4:5], lambda logits: (weights[4:5] * logits).sum(1), generator=SampleStreams(0, [4]))
        torch.testing.assert_close(one, whole[4:5])

    @named
    def test_no_images_have_no_maps(self, method: Attribution):
        model, (x, y) = network(method), batch()
        assert method(model, x[:0], y[:0]).shape == (0, 3, 8, 8)


class TestPrecision:
    @named
    @pytest.mark.parametrize(
        ("given", "weights", "result"),
        [
            (torch.float64, torch.float32, torch.float64),
            (torch.bfloat16, torch.float32, torch.float32),
            (torch.float32, torch.bfloat16, torch.float32),
        ],
        ids=str,
    )
    def test_of_the_result_is_that_of_the_images(self, method: Attribution, given, weights, result):
        model, (x, y) = network(method, weights), batch(dtype=given)
        found = method(model, x, y)
        assert found.dtype == result and found.isfinite().all() and not found.requires_grad

    @named
    def test_float32_agrees_with_float64(self, method: Attribution):
        x, y = batch(dtype=torch.float64)
        found = method(network(method), x.float(), y)
        torch.testing.assert_close(found.double(), method(network(method).double(), x, y), rtol=1e-3, atol=1e-4)
