"""Explanation metrics: each configured one obeys the contract, and has closed forms on linear models."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from xrobust.attacks import PGD, TopKAttack
from xrobust.attributions import Constant, Gradient, InputXGradient, IntegratedGradients, SmoothGrad
from xrobust.errors import UserError
from xrobust.metrics import (
    AverageSensitivity,
    DeletionAUC,
    EtmannAlignment,
    ExplanationMetric,
    GiniIndex,
    InputGradientNorm,
    InsertionAUC,
    MeanSubtractedAlignment,
    PredictionKept,
    Probe,
    SpearmanCorrelation,
    TopKIntersection,
)
from xrobust.metrics.base import GROUPS
from xrobust.threat import ThreatModel

CONFIGURATIONS = sorted(Path(__file__).parents[2].glob("conf/metrics/*.yaml"))
THREAT = ThreatModel("linf", "8/255")


def built(node: Any) -> Any:
    """What a configuration node describes, without Hydra."""
    if not isinstance(node, dict):
        return node
    module, name = node["_target_"].rsplit(".", 1)
    arguments = {key: built(value) for key, value in node.items() if key != "_target_"}
    return getattr(importlib.import_module(module), name)(**arguments)


def configured(path: Path) -> ExplanationMetric:
    (node,) = yaml.safe_load(path.read_text(encoding="utf-8")).values()
    return built(node)


every_metric = pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.stem)


def network(channels: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = nn.Sequential(
            nn.Conv2d(channels, 6, 3),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Conv2d(6, 6, 3, stride=2),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Flatten(),
            nn.Linear(54, 5),
        ).double()
    with torch.no_grad():  # at a grey image all classes tie, so that there are decision boundaries near the images
        model[-1].bias -= model.eval()(torch.full((1, channels, 9, 9), 0.5, dtype=torch.float64))[0]
    return model.train()


def linear(weights: Tensor, bias: Tensor | None = None) -> nn.Module:
    """f(x) = ⟨w_k, x⟩ + b_k in float64, for weights (K, C, H, W)."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(weights[0].numel(), len(weights))).double()
    model[1].weight.data.copy_(weights.flatten(1))
    model[1].bias.data.copy_(torch.zeros(len(weights)) if bias is None else bias)
    return model


class Blinking(nn.Module):
    """A linear model that answers zero, whatever the image, while the first pixel is dark."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = linear(2 * random(2, 1, 4, 4, seed=7) - 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) * (x[:, 0, 0, :1] > 0.5)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make_probe(model: nn.Module, x: Tensor, y: Tensor | None = None, rows: Tensor | None = None, **changes) -> Probe:
    y = torch.arange(len(x)) % 2 if y is None else y
    rows = torch.arange(len(x)) if rows is None else rows
    values = {
        "method": Gradient(),
        "threat": THREAT,
        "attack": PGD(threat=THREAT, steps=3),
        "map_attack": TopKAttack(threat=changes.get("threat", THREAT), attribution=Gradient(), steps=2),
        "mask": x[rows].mean(1) > x[rows].mean((1, 2, 3)).view(-1, 1, 1),
        "pool": (random(20, *x.shape[1:], seed=8), torch.arange(20) % 10),
        **changes,
    }
    return Probe(model=model, x=x[rows], y=y[rows], index=rows, **values)


def values_of(metric: ExplanationMetric, probe: Probe) -> Tensor:
    return metric.per_sample(probe)


@every_metric
class TestContract:
    def test_configuration_is_keyed_by_its_own_name_and_the_metric_says_what_it_is(self, path):
        assert list(yaml.safe_load(path.read_text(encoding="utf-8"))) == [path.stem]
        metric = configured(path)
        assert isinstance(metric.higher_is_better, bool) and isinstance(metric.uses_attribution, bool)
        assert metric.group in GROUPS
        assert metric.cost in {"cheap", "moderate", "expensive"}

    @pytest.mark.parametrize(
        ("channels", "method"), [(1, Gradient()), (3, SmoothGrad(samples=2))], ids=["grey", "colour"]
    )
    def test_values_do_not_depend_on_batch_size_order_or_partition(self, path, channels, method):
        model, x, metric = network(channels), random(9, channels, 9, 9), configured(path)
        whole = values_of(metric, make_probe(model, x, method=method))
        assert whole.shape == (9,) and whole.isfinite().all()
        order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
        for batch_size, rows in ((1, order), (7, order), (256, order[:2])):
            probe = make_probe(model, x, rows=rows, method=method, batch_size=batch_size)
            torch.testing.assert_close(values_of(metric, probe), whole[rows])

    def test_a_process_without_images_adds_nothing(self, path):
        metric = configured(path)
        metric.update(make_probe(network(1), random(3, 1, 9, 9), rows=torch.arange(0)))
        assert (metric.value_sum.item(), metric.valid.item(), metric.total.item()) == (0, 0, 0)

    def test_processes_and_batches_add_up(self, path):
        model, x, whole, first, second = (
            network(1),
            random(12, 1, 9, 9),
            *(configured(path) for _ in range(3)),
        )
        whole.update(make_probe(model, x))
        first.update(make_probe(model, x, rows=torch.arange(5)))
        second.update(make_probe(model, x, rows=torch.arange(5, 8)))
        second.update(make_probe(model, x, rows=torch.arange(8, 12)))
        first.merge_state(second)
        torch.testing.assert_close(first.compute(), whole.compute())
        assert first.compute().dtype == torch.float64
        assert first.valid_share().item() == 1

    def test_a_model_that_ignores_its_input_leaves_every_map_undefined_and_counted(self, path):
        metric = configured(path)
        model, x = linear(torch.zeros(2, 1, 4, 4)), random(6, 1, 4, 4)
        values = values_of(metric, make_probe(model, x))
        metric.update(make_probe(model, x))
        # A flat loss has a gradient, and its norm is zero; a constant model keeps its prediction.
        if isinstance(metric, InputGradientNorm | PredictionKept):
            assert values.tolist() == [isinstance(metric, PredictionKept)] * 6 and metric.valid_share().item() == 1
        else:
            assert values.isnan().all()
            assert metric.valid_share().item() == 0 and metric.compute().isnan()

    def test_undefined_samples_do_not_touch_the_others(self, path):
        if path.stem.startswith("grid_pg"):
            pytest.skip("the mosaic that the model sees has another first pixel than the image")
        if path.stem.startswith("prediction_kept"):
            pytest.skip("defined for every image")
        if configured(path).group == "certified":
            pytest.skip("the network is refused: no bound is known for the choice of a pixel")
        x = random(6, 1, 4, 4)
        seen = torch.tensor([True, False, True, True, False, True])
        x[:, 0, 0, 0] = seen.double()
        mixed, defined = configured(path), configured(path)
        mixed.update(make_probe(Blinking(), x))
        defined.update(make_probe(Blinking(), x, rows=seen.nonzero()[:, 0]))
        if isinstance(mixed, InputGradientNorm):
            assert mixed.value_sum.item() == pytest.approx(defined.value_sum.item())
            assert mixed.valid_share().item() == 1
        else:
            torch.testing.assert_close(mixed.compute(), defined.compute())
            assert mixed.valid_share().item() == pytest.approx(4 / 6)

    def test_nothing_is_changed(self, path):
        model, x = network(3).train(), random(4, 3, 9, 9)
        probe = make_probe(model, x)
        tensors = {name: getattr(probe, name) for name in ("x", "y", "index", "map", "adversarial", "adversarial_map")}
        before = {name: tensor.clone() for name, tensor in tensors.items()}
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        random_state = torch.get_rng_state()
        configured(path).update(probe)
        assert all(torch.equal(tensor, before[name]) for name, tensor in tensors.items())
        assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
        assert all(module.training for module in model.modules())
        assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
        assert torch.equal(torch.get_rng_state(), random_state)

    def test_works_in_inference_mode_and_goes_on_outside(self, path):
        model, x, metric = network(1), random(6, 1, 9, 9), configured(path)
        expected = values_of(metric, make_probe(model, x))
        with torch.inference_mode():
            metric.reset()
            metric.update(make_probe(model, x.clone(), rows=torch.arange(3)))
        metric.update(make_probe(model, x, rows=torch.arange(3, 6)))
        torch.testing.assert_close(metric.compute(), expected.mean())

    def test_single_precision_is_close_to_double(self, path):
        if path.stem.startswith("topk"):
            pytest.skip("a near tie at the threshold may fall either way")
        model, x = network(1), random(6, 1, 9, 9)
        double = values_of(configured(path), make_probe(model, x))
        single = values_of(configured(path), make_probe(model.float(), x.float()))
        torch.testing.assert_close(single.double(), double.double(), rtol=1e-2, atol=1e-3)


class TestStreaming:
    class Given(ExplanationMetric):
        """The values of the label, as they are."""

        higher_is_better, group, cost = True, "complexity", "cheap"

        def per_sample(self, probe: Probe) -> Tensor:
            return torch.tensor([1.0, float("nan"), 3.0, float("inf"), -float("inf"), 2.0**25])[probe.y]

    def test_what_is_not_finite_is_left_out_and_counted(self):
        metric = self.Given()
        x = random(5, 1, 2, 2)
        metric.update(make_probe(linear(torch.zeros(5, 1, 2, 2)), x, torch.arange(5)))
        assert metric.compute().item() == 2
        assert metric.valid_share().item() == pytest.approx(2 / 5)
        metric.update(make_probe(linear(torch.zeros(5, 1, 2, 2)), x[:1], torch.tensor([2])))
        assert metric.compute().item() == pytest.approx(7 / 3)
        assert metric.valid_share().item() == pytest.approx(3 / 6)

    def test_many_samples_do_not_wear_down_the_mean(self):
        metric = self.Given()
        metric.update(make_probe(linear(torch.zeros(6, 1, 2, 2)), random(2, 1, 2, 2), torch.tensor([5, 0])))
        metric.update(make_probe(linear(torch.zeros(6, 1, 2, 2)), random(1, 1, 2, 2), torch.tensor([0])))
        assert metric.value_sum.item() == 2**25 + 2


class TestLinearModels:
    weights = 2 * random(2, 3, 4, 4, seed=1) - 1

    def test_alignment_is_the_cosine_times_the_length_of_the_image(self):
        x = random(6, 3, 4, 4)
        probe = make_probe(linear(self.weights), x)
        w = self.weights[probe.y].flatten(1)
        cosine = torch.cosine_similarity(x.flatten(1), w)
        torch.testing.assert_close(values_of(EtmannAlignment(), probe), cosine.abs() * x.flatten(1).norm(dim=1))

    def test_mean_subtracted_alignment_does_not_see_brightness(self):
        x = random(6, 3, 4, 4) / 2
        dark, bright = (make_probe(linear(self.weights), images) for images in (x, x + 0.4))
        torch.testing.assert_close(
            values_of(MeanSubtractedAlignment(), dark), values_of(MeanSubtractedAlignment(), bright)
        )
        assert (values_of(EtmannAlignment(), dark) - values_of(EtmannAlignment(), bright)).abs().min() > 1e-3

    def test_alignment_with_an_image_without_content_is_undefined(self):
        model, black, grey = linear(self.weights), torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 0.3)
        assert values_of(EtmannAlignment(), make_probe(model, black)).isnan().all()
        assert values_of(EtmannAlignment(), make_probe(model, grey)).isfinite().all()
        assert values_of(MeanSubtractedAlignment(), make_probe(model, grey)).isnan().all()
        assert values_of(MeanSubtractedAlignment(), make_probe(linear(self.weights), grey.float())).isnan().all()

    @pytest.mark.parametrize(("norm", "order"), [("l1", 1), ("l2", 2)])
    def test_gradient_of_the_loss_is_the_probability_of_error_times_the_difference_of_weights(self, norm, order):
        model, x = linear(self.weights), random(6, 3, 4, 4)
        probe = make_probe(model, x)
        error = 1 - model(x).softmax(1).detach().gather(1, probe.y[:, None])[:, 0]
        expected = error * (self.weights[1] - self.weights[0]).norm(order)
        torch.testing.assert_close(values_of(InputGradientNorm(norm), probe), expected)

    def test_a_gradient_that_does_not_move_is_perfectly_stable(self):
        probe = make_probe(linear(self.weights), random(6, 3, 4, 4))
        assert values_of(AverageSensitivity(), probe).tolist() == [0] * 6
        for versus in ("adversarial", "neighbour"):
            assert values_of(TopKIntersection(0.2, versus), probe).tolist() == [1] * 6
            assert values_of(SpearmanCorrelation(versus), probe).tolist() == pytest.approx([1] * 6)

    def test_average_sensitivity_of_input_times_gradient_is_the_relative_size_of_the_noise(self):
        model, x = linear(torch.ones(2, 1, 30, 30)), torch.full((3, 1, 30, 30), 0.5, dtype=torch.float64)
        probe = make_probe(model, x, method=InputXGradient(), threat=ThreatModel("linf", 0.2), attack=None)
        expected = 0.2 / 3**0.5 / 0.5  # the root mean square of a uniform draw, over the size of a pixel
        torch.testing.assert_close(
            values_of(AverageSensitivity(samples=20), probe),
            torch.full((3,), expected).double(),
            rtol=0.02,
            atol=0,
        )


class TestPixelFlipping:
    def test_deletion_follows_the_curve_of_a_linear_model(self):
        x = random(4, 3, 2, 2)
        model = linear(torch.stack([random(3, 2, 2, seed=5) + 0.1, torch.zeros(3, 2, 2).double()]))
        y = torch.zeros(4, dtype=torch.int64)
        probe = make_probe(model, x, y, method=InputXGradient())
        shares = (x * model[1].weight.detach()[0].view(3, 2, 2)).sum(1).flatten(1).sort(1, descending=True).values
        left = shares.sum(1, keepdim=True) - torch.cat([torch.zeros(4, 1).double(), shares.cumsum(1)], 1)
        curve = left.sigmoid()
        expected = (curve[:, 1:] + curve[:, :-1]).sum(1) / 8
        torch.testing.assert_close(values_of(DeletionAUC(steps=4), probe), expected)

    def test_deletion_back_to_front_is_insertion_into_the_same_baseline(self):
        class Reversed(InputXGradient):
            def attribute(self, model, x, score, create_graph, generator):
                return 1 / super().attribute(model, x, score, create_graph, generator)

        x, model = random(4, 1, 4, 4) + 0.1, linear(random(2, 1, 4, 4, seed=5) + 0.1)
        black = Constant(0.0)
        deletion = values_of(DeletionAUC(4, black), make_probe(model, x, method=InputXGradient()))
        insertion = values_of(InsertionAUC(4, black), make_probe(model, x, method=Reversed()))
        torch.testing.assert_close(deletion, insertion)

    def test_the_score_of_a_constant_probability_is_that_probability(self):
        x = torch.full((2, 1, 4, 4), 0.5, dtype=torch.float64)
        model = linear(torch.ones(2, 1, 4, 4), torch.tensor([1.0, 0.0]))
        probe = make_probe(model, x)
        expected = torch.tensor([1.0, -1.0]).double().sigmoid()
        for metric in (DeletionAUC(), InsertionAUC(), DeletionAUC(steps=1), DeletionAUC(steps=7)):
            torch.testing.assert_close(values_of(metric, probe), expected)

    def test_signed_order_deletes_evidence_against_the_label_last(self):
        weights = torch.tensor([[[[3.0, 1.0], [-2.0, 0.5]]], [[[0.0, 0.0], [0.0, 0.0]]]]).double()
        x, y = torch.ones(1, 1, 2, 2).double(), torch.zeros(1, dtype=torch.int64)
        probe = make_probe(linear(weights), x, y, method=IntegratedGradients(steps=2))

        def area(logits: list[float]) -> float:
            return torch.trapezoid(torch.tensor(logits).double().sigmoid(), dx=1 / 4).item()

        signed = values_of(DeletionAUC(steps=4, signed=True), probe).item()
        unsigned = values_of(DeletionAUC(steps=4), probe).item()
        assert signed == pytest.approx(area([2.5, -0.5, -1.5, -2, 0]))
        assert unsigned == pytest.approx(area([2.5, -0.5, 1.5, 0.5, 0]))

    def test_all_channels_of_a_pixel_go_together(self):
        x = random(2, 3, 3, 3) + 0.1
        seen = []
        model = linear(random(2, 3, 3, 3, seed=5))
        probe = make_probe(model, x)
        probe.map  # noqa: B018
        model.register_forward_pre_hook(lambda _, inputs: seen.append((inputs[0] == 0).sum((2, 3))))
        values_of(DeletionAUC(steps=3), probe)
        assert [gone.tolist() for gone in seen] == [[[n] * 3] * 2 for n in (0, 3, 6, 9)]


class TestSparseGroundTruth:
    """A model that sees one pixel: every map must be that pixel."""

    weights = torch.zeros(2, 1, 5, 5).double()
    weights[0, 0, 1, 3], weights[1, 0, 1, 3] = 1.0, -1.0

    def test_is_as_sparse_as_can_be_and_faithful(self):
        x = random(6, 1, 5, 5) / 2 + 0.5
        probe = make_probe(linear(self.weights), x, torch.zeros(6, dtype=torch.int64))
        assert values_of(GiniIndex(), probe).tolist() == pytest.approx([24 / 25] * 6)
        seen, blank = (torch.stack([x[:, 0, 1, 3], -x[:, 0, 1, 3]], 1).softmax(1)[:, 0], 0.5)
        expected = (seen + blank) / 2 / 25 + blank * 24 / 25
        torch.testing.assert_close(values_of(DeletionAUC(steps=25), probe), expected)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: TopKIntersection(share=0), "share must be above 0 and at most 1, got 0"),
        (lambda: TopKIntersection(share=1.5), "share must be above 0 and at most 1, got 1.5"),
        (lambda: TopKIntersection(versus="noise"), "TopKIntersection.versus must be one of.*got 'noise'"),
        (
            lambda: SpearmanCorrelation(versus="noise"),
            "SpearmanCorrelation.versus must be one of.*got 'noise'",
        ),
        (lambda: InputGradientNorm("linf"), "norm must be one of 'l1', 'l2', got 'linf'"),
        (lambda: AverageSensitivity(samples=0), "samples must be at least 1, got 0"),
        (lambda: DeletionAUC(steps=0), "DeletionAUC.steps must be at least 1, got 0"),
    ],
)
def test_a_value_outside_its_range_is_named(build, message):
    with pytest.raises(UserError, match=message):
        build()
