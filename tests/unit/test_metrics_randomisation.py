"""Randomisation metrics: random networks that leave no trace, and similarities with known values."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace

import pytest
import scipy.stats
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torchmetrics.functional.image import structural_similarity_index_measure

from xrobust.attributions import Attribution, Gradient, InputXGradient, RandomMap
from xrobust.errors import UserError
from xrobust.metrics import MPRT, EfficientMPRT, Probe, RandomLogit, SmoothMPRT
from xrobust.metrics.efficient_mprt import histogram_entropy
from xrobust.metrics.map_similarity import spearman
from xrobust.metrics.model_randomisation import layers_to_randomise, randomise, randomised_network, randomised_networks
from xrobust.metrics.random_logit import other_class
from xrobust.metrics.structural_similarity import structural_similarity
from xrobust.threat import ThreatModel

THREAT = ThreatModel("linf", "8/255")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make_probe(model: nn.Module, x: Tensor, y: Tensor | None = None, **changes) -> Probe:
    y = torch.arange(len(x)) % 2 if y is None else y
    values = {"index": torch.arange(len(x)), "method": Gradient(), "threat": THREAT, **changes}
    return Probe(model=model, x=x, y=y, **values)


def network() -> nn.Module:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3),
        nn.BatchNorm2d(4, affine=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 5),
    )
    model(torch.rand(8, 1, 8, 8))  # batch statistics other than the initial ones
    return model


@dataclass(frozen=True, kw_only=True)
class Image(Attribution):
    """The image itself: an explanation that needs no model."""

    def attribute(self, model, x, score, create_graph, generator):
        return x


class Scale(nn.Module):
    """A module with parameters of its own that cannot reset them."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(2.0))
        self.shift = nn.Parameter(torch.full((3, 1000), -4.0))


def different(first: nn.Module, second: nn.Module) -> list[bool]:
    """For each layer, whether anything in it differs."""
    return [
        any(not torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
        for one, other in zip(layers_to_randomise(first), layers_to_randomise(second), strict=True)
    ]


class TestRandomise:
    def test_every_module_that_has_learned_something_is_a_layer(self):
        model = nn.Sequential(network(), Scale(), nn.ReLU())
        names = [type(layer).__name__ for layer in layers_to_randomise(model)]
        assert names == ["Conv2d", "BatchNorm2d", "Conv2d", "BatchNorm2d", "Linear", "Scale"]

    def test_a_layer_gets_what_pytorch_would_start_from(self):
        layer, expected = nn.Conv2d(2, 3, 3), nn.Conv2d(2, 3, 3)
        randomise(layer, 7)
        torch.manual_seed(7)
        expected.reset_parameters()
        assert torch.equal(layer.weight, expected.weight) and torch.equal(layer.bias, expected.bias)

    def test_batch_statistics_are_forgotten(self):
        for layer in (module for module in network() if isinstance(module, nn.BatchNorm2d)):
            assert (layer.running_mean != 0).all() and (layer.running_var != 1).all()
            randomise(layer, 0)
            assert (layer.running_mean == 0).all() and (layer.running_var == 1).all()

    def test_parameters_without_a_start_become_noise_of_their_size(self):
        layer = Scale()
        randomise(layer, 3)
        assert layer.gain.item() != 2
        assert layer.shift.mean().item() == pytest.approx(0, abs=0.3)
        assert layer.shift.std().item() == pytest.approx(4, rel=0.05)

    @pytest.mark.parametrize("parametrised", [parametrizations.spectral_norm, parametrizations.weight_norm])
    def test_a_parametrised_weight_is_random_too(self, parametrised):
        layer = parametrised(nn.Linear(6, 5)).eval()  # in training mode, asking for the weight changes it
        before, originals = layer.weight.clone(), [p.clone() for p in layer.parameters()]
        network = randomised_network(layer, 0)
        assert (network.weight != before).all()
        assert all((new != old).all() for new, old in zip(network.parameters(), originals, strict=True))
        assert torch.equal(layer.weight, before)

    def test_precision_does_not_change_the_draws(self):
        single, double = nn.Linear(5, 4), nn.Linear(5, 4).double()
        randomise(single, 1)
        randomise(double, 1)
        assert double.weight.dtype == torch.float64 and torch.equal(double.weight.float(), single.weight)

    def test_no_random_state_is_touched(self, monkeypatch):
        def forbidden(*_: object) -> None:
            raise AssertionError("the generators of the GPUs were seeded")

        for name in ("manual_seed", "manual_seed_all"):
            monkeypatch.setattr(torch.cuda, name, forbidden)
        layers = layers_to_randomise(nn.Sequential(network(), Scale()))
        before = torch.get_rng_state()
        for layer in layers:
            randomise(layer, 5)
        assert torch.equal(torch.get_rng_state(), before)


class TestRandomisedNetworks:
    @pytest.mark.parametrize("top_down", [True, False])
    def test_layers_go_one_by_one_and_the_model_stays(self, top_down):
        model = network().train()
        state, kept = deepcopy(model.state_dict()), deepcopy(model)
        seen = [different(model, copy) for copy in randomised_networks(model, 0, top_down=top_down, steps=99)]
        expected = [[place <= step for place in range(5)] for step in range(5)]
        assert seen == ([row[::-1] for row in expected] if top_down else expected)
        assert all(torch.equal(model.state_dict()[name], value) for name, value in state.items())
        assert different(model, kept) == [False] * 5 and all(module.training for module in model.modules())

    @pytest.mark.parametrize(("steps", "counts"), [(1, [5]), (2, [2, 5]), (3, [1, 3, 5]), (4, [1, 2, 3, 5])])
    def test_the_last_of_few_steps_has_lost_everything(self, steps, counts):
        model = network()
        copies = randomised_networks(model, 0, top_down=True, steps=steps)
        assert [sum(different(model, copy)) for copy in copies] == counts

    def test_the_new_values_depend_on_seed_and_place_alone(self):
        model = network()
        down, up, one = (
            list(randomised_networks(model, 0, top_down=top_down, steps=steps))[-1]
            for top_down, steps in ((True, 5), (False, 3), (True, 1))
        )
        assert different(down, up) == different(down, one) == [False] * 5
        other = randomised_network(model, 1)
        assert different(down, other) == [True, False, True, False, True]  # batch norm starts the same way always

    def test_layers_of_equal_shape_get_values_of_their_own(self):
        first, second = randomised_network(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), 0)
        assert (first.weight != second.weight).all()

    def test_works_on_a_model_in_inference_mode(self):
        model = network()
        with torch.inference_mode():
            copy = randomised_network(model, 0)
        assert not any(parameter.is_inference() for parameter in copy.parameters())
        assert different(copy, randomised_network(model, 0)) == [False] * 5

    def test_a_model_without_parameters_is_refused(self):
        with pytest.raises(UserError, match="needs a model with parameters, Flatten has none"):
            randomised_network(nn.Flatten(), 0)


class TestMPRT:
    def test_is_the_mean_over_the_random_networks_without_the_trained_one(self, digits, digits_model):
        probe = make_probe(digits_model, digits[0][:6], digits[1][:6], seed=4)
        for top_down in (True, False):
            values = [
                spearman(probe.map, replace(probe, model=other, shared={}).map)
                for other in randomised_networks(digits_model, 4, top_down=top_down, steps=3)
            ]
            torch.testing.assert_close(MPRT(top_down, steps=3).per_sample(probe), torch.stack(values).mean(0))
        assert len(values) == 3 and all((value < 0.9).all() for value in values)

    @pytest.mark.parametrize("method", [Image(), RandomMap()], ids=["image", "noise"])
    @pytest.mark.parametrize("similarity", ["spearman", "ssim"])
    def test_an_explanation_that_needs_no_model_is_found_out(self, method, similarity, digits, digits_model):
        probe = make_probe(digits_model, digits[0][:4], digits[1][:4], method=method)
        for metric in (MPRT(similarity=similarity), SmoothMPRT(similarity=similarity, steps=2, samples=3)):
            assert metric.per_sample(probe).tolist() == pytest.approx([1] * 4)

    def test_all_images_see_the_same_networks_whatever_their_batch_and_index(self, digits, digits_model):
        x = digits[0][:1].expand(3, -1, -1, -1)
        probe = make_probe(digits_model, x, torch.zeros(3, dtype=torch.int64), index=torch.tensor([5, 9, 2]))
        values = MPRT().per_sample(probe)
        torch.testing.assert_close(values, values[:1].expand(3))
        other_seed = MPRT().per_sample(replace(probe, seed=1, shared={}))
        assert (other_seed - values).abs().min() > 1e-3

    def test_smoothing_without_noise_is_the_plain_test(self, digits, digits_model):
        probe = make_probe(digits_model, digits[0][:4], digits[1][:4])
        smooth = SmoothMPRT(top_down=True, sigma=0.0, samples=1).per_sample(probe)
        torch.testing.assert_close(smooth, MPRT().per_sample(probe))
        noisy = SmoothMPRT(top_down=True, sigma=0.3, samples=2).per_sample(probe)
        assert (noisy - smooth).abs().max() > 1e-3

    def test_a_zero_map_is_undefined(self):
        model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).double()
        nn.init.zeros_(model[1].weight)
        for metric in (MPRT(), MPRT(similarity="ssim"), SmoothMPRT(), EfficientMPRT(), RandomLogit()):
            assert metric.per_sample(make_probe(model, random(2, 1, 4, 4))).isnan().all()


class TestEfficientMPRT:
    def test_histogram_entropy_of_values_at_the_centres_equals_scipy(self):
        values = torch.tensor([[0, 0, 1, 2, 2, 2, 9], [9, 9, 9, 9, 9, 0, 4]]).double()
        expected = [scipy.stats.entropy([2, 1, 3, 1]), scipy.stats.entropy([5, 1, 1])]
        assert histogram_entropy(values, 10).tolist() == pytest.approx(expected)
        torch.testing.assert_close(histogram_entropy(3 * values + 5, 10), histogram_entropy(values, 10))

    def test_a_value_between_two_centres_counts_for_both(self):
        found = histogram_entropy(torch.tensor([[0, 0.25, 1.0]]), 3)
        assert found.item() == pytest.approx(scipy.stats.entropy([1.5, 0.5, 1]))

    def test_histogram_entropy_ends_at_a_constant_and_at_the_logarithm_of_the_bins(self):
        assert histogram_entropy(torch.full((1, 5), 0.3), 7).tolist() == [0]
        assert histogram_entropy(torch.arange(7.0)[None], 7).exp().item() == pytest.approx(7)
        assert histogram_entropy(torch.tensor([[1.0, torch.nan], [torch.inf, 1.0]]), 7).isnan().all()

    def test_is_the_relative_rise_of_the_entropy(self, digits, digits_model):
        probe = make_probe(digits_model, digits[0][:6], digits[1][:6], seed=2)
        other = Gradient()(randomised_network(digits_model, 2), probe.x, probe.y)
        before, after = (histogram_entropy(a.abs().sum(1).flatten(1), 50) for a in (probe.map, other))
        torch.testing.assert_close(EfficientMPRT(50).per_sample(probe), (after - before) / before)

    def test_an_explanation_that_needs_no_model_gains_nothing(self, digits, digits_model):
        probe = make_probe(digits_model, digits[0][:4], digits[1][:4], method=Image())
        assert EfficientMPRT().per_sample(probe).tolist() == [0] * 4


class TestRandomLogit:
    def test_the_other_class_is_uniform_and_never_the_label(self):
        model = nn.Sequential(nn.Flatten(), nn.Linear(4, 5)).double()
        probe = make_probe(model, random(1000, 1, 2, 2), torch.arange(1000) % 5)
        offset = (other_class(probe, "test") - probe.y) % 5
        share = offset.bincount(minlength=5) / 1000
        assert share[0] == 0 and ((share[1:] - 0.25).abs() < 0.06).all()

    def test_compares_the_maps_of_two_classes(self):
        model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).double()
        x, weights = random(4, 1, 4, 4), model[1].weight.detach().abs()
        expected = scipy.stats.spearmanr(weights[0], weights[1]).statistic
        assert RandomLogit().per_sample(make_probe(model, x)).tolist() == pytest.approx([expected] * 4)
        assert RandomLogit().per_sample(make_probe(model, x, method=Image())).tolist() == pytest.approx([1] * 4)

    def test_a_model_with_one_class_has_no_other(self):
        model = nn.Sequential(nn.Flatten(), nn.Linear(16, 1)).double()
        probe = make_probe(model, random(2, 1, 4, 4), torch.zeros(2, dtype=torch.int64), method=InputXGradient())
        assert RandomLogit().per_sample(probe).isnan().all()


class TestStructuralSimilarity:
    def test_equals_torchmetrics_where_its_window_fits(self):
        first, second = random(3, 28, 28), random(3, 28, 28, seed=1)
        scaled = [values / values.amax((1, 2), keepdim=True) for values in (first, (first + second) / 2)]
        _, everywhere = structural_similarity_index_measure(
            *(values[:, None] for values in scaled), data_range=1.0, reduction="none", return_full_image=True
        )
        found = structural_similarity(first, 7 * (first + second))
        torch.testing.assert_close(found, everywhere[:, 0, 5:-5, 5:-5].mean((1, 2)), rtol=1e-6, atol=1e-8)

    @pytest.mark.parametrize("size", [1, 4, 8, 30])
    def test_of_equal_maps_is_one_whatever_their_scale(self, size):
        values = random(2, size, size) + 0.1
        assert structural_similarity(values, 5 * values).tolist() == pytest.approx([1, 1])

    def test_has_no_side(self):
        first, second = random(2, 8, 8), random(2, 8, 8, seed=1)
        torch.testing.assert_close(
            structural_similarity(first, second), structural_similarity(first.flip(1, 2), second.flip(1, 2))
        )

    def test_a_zero_map_is_undefined(self):
        values = random(3, 8, 8)
        values[0], values[1, 0, 0] = 0, torch.nan
        assert structural_similarity(values, random(3, 8, 8, seed=1)).isnan().tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MPRT(steps=0), "MPRT.steps must be an integer of at least 1, got 0"),
        (lambda: MPRT(similarity="cosine"), "MPRT.similarity must be one of 'spearman', 'ssim', got 'cosine'"),
        (lambda: SmoothMPRT(samples=0), "SmoothMPRT.samples must be an integer of at least 1, got 0"),
        (lambda: SmoothMPRT(sigma=-0.1), "SmoothMPRT.sigma must be at least 0, got -0.1"),
        (lambda: EfficientMPRT(bins=1), "EfficientMPRT.bins must be an integer of at least 2, got 1"),
        (lambda: RandomLogit("l2"), "RandomLogit.similarity must be one of 'spearman', 'ssim', got 'l2'"),
    ],
)
def test_a_value_outside_its_range_is_named(build, message):
    with pytest.raises(UserError, match=message):
        build()
