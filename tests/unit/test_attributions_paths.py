"""Attributions along paths, under noise, at the boundary and inside: closed forms, captum, statistics, batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conf_walk import CONF
from test_metrics import probe
from torch import Tensor, nn

from xrobust.attacks import DDN, FAB, PGD, Attack, DeepFool
from xrobust.attributions import (
    Attribution,
    BoundaryIntegratedGradients,
    BoundarySaliency,
    Constant,
    ExpectedGradients,
    FixedImages,
    GaussianBlur,
    Gradient,
    GradientShap,
    ImageMean,
    IntegratedGradients,
    InternalInfluence,
    Mixture,
    ReferenceImages,
    SmoothGrad,
    UniformImages,
    VarGrad,
    nearest_boundary,
    scores,
    unit_influence,
)
from xrobust.attributions.distributions import Gaussian, Line, Point
from xrobust.config.build import build_all, load_yaml
from xrobust.errors import UserError
from xrobust.metrics import GiniIndex, Probe
from xrobust.randomness import SampleStreams, normal_like, uniform_like
from xrobust.threat import ThreatModel

L2 = ThreatModel("l2", 1)
SEARCH = DDN(threat=L2, steps=30, gamma=0.1)
RULES = ["gauss_legendre", "riemann_midpoint"]
METHODS = {
    "integrated_gradients_noise": IntegratedGradients(steps=4, baseline=UniformImages()),
    "expected_gradients": ExpectedGradients(samples=5),
    "gradient_shap": GradientShap(samples=5),
    "var_grad": VarGrad(samples=5),
    "influence_on_the_score": InternalInfluence(distribution=Gaussian(samples=5)),
    "influence_on_a_unit": InternalInfluence(layer="2", channel=1, distribution=Line(steps=5)),
    "influence_on_the_best_unit": InternalInfluence(layer="5", distribution=Line(steps=5, baseline=UniformImages())),
    "boundary_saliency": BoundarySaliency(attack=SEARCH),
    "boundary_integrated_gradients": BoundaryIntegratedGradients(attack=SEARCH, steps=5),
}
named = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
differentiable = {name: method for name, method in METHODS.items() if method.differentiable}


def network(dtype: torch.dtype = torch.float64) -> nn.Module:
    """A smooth network with batch norm and dropout, on 6 × 6 RGB images, in training mode; all classes occur."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=2),
            nn.BatchNorm2d(4),
            nn.Tanh(),
            nn.Dropout(0.5),
            nn.Flatten(),
            nn.Linear(16, 5),
            nn.Softplus(),
            nn.Linear(5, 4),
        ).to(dtype)
    with torch.no_grad():
        model[7].bias -= model.eval()(batch(200, dtype)[0]).mean(0)
    return model.train()


def batch(count: int = 9, dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(count, 3, 6, 6, generator=generator, dtype=dtype)
    return x, torch.randint(4, (count,), generator=generator)


def linear() -> tuple[nn.Module, Tensor]:
    """A linear classifier of 6 × 6 RGB images and its weights as images."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = nn.Sequential(nn.Flatten(), nn.Linear(108, 4)).double()
    return model, model[1].weight.detach().view(4, 3, 6, 6)


def output(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """f_y(x) in eval mode."""
    with torch.no_grad():
        return model.eval()(x).gather(1, y[:, None])[:, 0]


def streams(count: int, seed: int = 0) -> SampleStreams:
    return SampleStreams(seed, range(count))


def agree_in_the_mean(found: Tensor, expected: Tensor, sigmas: float = 5) -> None:
    """Whether independent estimates (S, ...) have the expected mean, within so many standard errors."""
    error = found.std(0) / len(found) ** 0.5
    assert ((found.mean(0) - expected).abs() <= sigmas * error + 1e-9).all()


class TestRandomBaselines:
    @pytest.mark.parametrize(
        "baseline",
        [UniformImages(), ReferenceImages(batch(7, seed=5)[0]), Mixture([Constant(0.5), UniformImages(0.2, 0.3)])],
        ids=lambda baseline: type(baseline).__name__,
    )
    def test_a_draw_belongs_to_its_sample_whatever_the_batch(self, baseline):
        x, _ = batch(20)
        whole = baseline.draw(x, streams(20))
        order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
        assert torch.equal(baseline.draw(x[order], SampleStreams(0, order.tolist())), whole[order])
        assert not torch.equal(baseline.draw(x, streams(20, seed=1)), whole)
        assert baseline.draw(x[:0], streams(0)).shape == (0, 3, 6, 6)
        assert whole.dtype == x.dtype

    def test_uniform_images_fill_their_range(self):
        drawn = UniformImages(0.25, 0.75).draw(batch(300)[0], streams(300))
        assert drawn.min() >= 0.25 and drawn.max() <= 0.75
        assert drawn.mean().item() == pytest.approx(0.5, abs=0.005)
        assert drawn.var().item() == pytest.approx(0.25 / 12, rel=0.03)

    def test_reference_images_are_drawn_evenly_from_the_set(self):
        references, x = batch(5, seed=3)[0], batch(2000)[0]
        drawn = ReferenceImages(references).draw(x, streams(2000))
        which = (drawn[:, None] == references).all((2, 3, 4))
        assert (which.sum(1) == 1).all()
        assert which.sum(0).tolist() == pytest.approx([400] * 5, abs=5 * (2000 * 0.2 * 0.8) ** 0.5)

    def test_a_mixture_chooses_evenly_for_each_image(self):
        drawn = Mixture([Constant(0.0), Constant(1.0), ImageMean()]).draw(batch(1500)[0], streams(1500))
        shares = [(drawn == 0).all((1, 2, 3)), (drawn == 1).all((1, 2, 3))]
        assert [share.sum().item() for share in shares] == pytest.approx([500, 500], abs=5 * (1500 * 2 / 9) ** 0.5)

    @pytest.mark.parametrize("stored", [torch.uint8, torch.float32])
    def test_references_can_come_from_a_file(self, stored, tmp_path):
        images = torch.arange(24).view(2, 3, 2, 2) * 10
        given = images.to(torch.uint8) if stored == torch.uint8 else images / 255
        np.savez(tmp_path / "images.npz", images=given.numpy())
        found = ReferenceImages(str(tmp_path / "images.npz")).images
        torch.testing.assert_close(found, images / 255, rtol=0, atol=1e-7)

    def test_files_that_hold_no_references_are_refused(self, tmp_path):
        np.savez(tmp_path / "other.npz", x=np.zeros(3))
        (tmp_path / "text.npz").write_text("no archive")
        for name, message in [("none", "does not exist"), ("other", "name images"), ("text", "not a readable")]:
            with pytest.raises(UserError, match=message):
                ReferenceImages(tmp_path / f"{name}.npz")

    @pytest.mark.parametrize(
        ("build", "message"),
        [
            (lambda: ReferenceImages(torch.zeros(3, 6, 6)), r"must be \(M, C, H, W\)"),
            (lambda: ReferenceImages(torch.zeros(0, 3, 6, 6)), r"must be \(M, C, H, W\)"),
            (lambda: ReferenceImages(torch.full((1, 3, 6, 6), 1.1)), r"lie in \[0, 1\]"),
            (lambda: ReferenceImages(torch.full((1, 3, 6, 6), torch.nan)), r"lie in \[0, 1\]"),
            (lambda: ReferenceImages(torch.zeros(1, 1, 6, 6)).draw(batch()[0], streams(9)), "do not fit"),
            (lambda: UniformImages(1.0, 0.0), "low must not exceed high"),
            (lambda: UniformImages()(batch()[0]), "UniformImages draws its images"),
            (lambda: Mixture([]), "at least one baseline"),
        ],
    )
    def test_mistakes_are_named(self, build, message):
        with pytest.raises(UserError, match=message):
            build()


BASELINES = [Constant(0.2), ImageMean(), GaussianBlur(5, 1.0), UniformImages(), ReferenceImages(batch(7, seed=5)[0])]


class TestIntegratedGradients:
    @pytest.mark.parametrize("rule", RULES)
    @pytest.mark.parametrize("baseline", BASELINES, ids=lambda baseline: type(baseline).__name__)
    def test_is_complete_and_equals_captum_from_each_baseline(self, baseline, rule):
        captum = pytest.importorskip("captum.attr")
        model, (x, y) = network(), batch()
        start = baseline.draw(x, streams(9)) if hasattr(baseline, "draw") else baseline(x)
        found = IntegratedGradients(steps=40, rule=rule, baseline=baseline)(model, x, y, generator=streams(9))
        torch.testing.assert_close(
            found.sum((1, 2, 3)), output(model, x, y) - output(model, start, y), rtol=1e-3, atol=1e-4
        )
        theirs = {"gauss_legendre": "gausslegendre", "riemann_midpoint": "riemann_middle"}[rule]
        expected = captum.IntegratedGradients(model).attribute(
            x, baselines=start, target=y, n_steps=40, method=theirs, internal_batch_size=1000
        )
        torch.testing.assert_close(found, expected)

    def test_the_seed_decides_the_noise(self):
        model, (x, y) = network(), batch()
        first, again, other = (
            IntegratedGradients(steps=3, baseline=UniformImages(), seed=seed)(model, x, y) for seed in (0, 0, 1)
        )
        assert torch.equal(first, again)
        assert not torch.allclose(first, other)


class TestExpectedGradients:
    def test_on_a_linear_model_it_is_the_mean_way_from_the_drawn_references_times_the_weights(self):
        model, weights = linear()
        x, y = batch()
        references = ReferenceImages(batch(7, seed=5)[0])
        found = ExpectedGradients(references=references, samples=4, seed=3)(model, x, y)
        source, starts = streams(9, seed=3), []
        for _ in range(4):
            starts.append(references.draw(x, source))
            uniform_like(x[:, 0, 0, 0], source)  # the place on the path
        torch.testing.assert_close(found, (x - torch.stack(starts).mean(0)) * weights[y])

    def test_is_the_mean_of_integrated_gradients_over_the_references(self):
        model, (x, y) = network(), batch(3)
        references = batch(6, seed=5)[0]
        found = [
            ExpectedGradients(references=ReferenceImages(references), samples=60, seed=seed)(model, x, y)
            for seed in range(30)
        ]
        of_each = [IntegratedGradients(steps=20, baseline=FixedImages(image))(model, x, y) for image in references]
        agree_in_the_mean(torch.stack(found), torch.stack(of_each).mean(0))

    def test_is_complete_in_expectation(self):
        model, (x, y) = network(), batch(3)
        references = batch(6, seed=5)[0]
        found = [
            ExpectedGradients(references=ReferenceImages(references), samples=60, seed=seed)(model, x, y).sum((1, 2, 3))
            for seed in range(30)
        ]
        at_references = torch.stack([output(model, image.expand_as(x), y) for image in references])
        agree_in_the_mean(torch.stack(found), output(model, x, y) - at_references.mean(0))

    def test_needs_no_data_by_default(self):
        model, (x, y) = network(), batch()
        assert ExpectedGradients(samples=3)(model, x, y).any((1, 2, 3)).all()


class TestGradientShap:
    def test_on_a_linear_model_the_noise_moves_the_end_of_the_path(self):
        model, weights = linear()
        x, y = batch()
        found = GradientShap(references=Constant(0.25), sigma=0.3, samples=3)(model, x, y)
        source, ends = streams(9), []
        for _ in range(3):
            ends.append(x + 0.3 * normal_like(x, source).double())
            uniform_like(x[:, 0, 0, 0], source)
        torch.testing.assert_close(found, (torch.stack(ends).mean(0) - 0.25) * weights[y])

    def test_equals_captum_in_the_mean(self):
        captum = pytest.importorskip("captum.attr")
        model, (x, y) = network().eval(), batch(3)
        references = batch(6, seed=5)[0]
        np.random.seed(0)  # captum draws from the global generators
        theirs = torch.stack(
            [
                captum.GradientShap(model).attribute(x, references, n_samples=40, stdevs=0.2, target=y).detach()
                for _ in range(40)
            ]
        )
        ours = torch.stack(
            [
                GradientShap(references=ReferenceImages(references), sigma=0.2, samples=40, seed=seed)(model, x, y)
                for seed in range(40)
            ]
        )
        agree_in_the_mean(ours - theirs, torch.zeros_like(x))
        ratio = ours.var(0).mean() / theirs.var(0).mean()
        assert 0.7 < ratio < 1.4


class TestVarGrad:
    def test_is_the_variance_of_the_gradients_that_smooth_grad_averages(self):
        model, (x, y) = network(), batch()
        found = VarGrad(sigma=0.3, samples=6, seed=5)(model, x, y)
        source = streams(9, seed=5)
        noisy = [x + 0.3 * normal_like(x, source).double() for _ in range(6)]
        gradients = torch.stack([Gradient()(model, z, y) for z in noisy])
        torch.testing.assert_close(found, gradients.var(0, correction=0))
        torch.testing.assert_close(gradients.mean(0), SmoothGrad(sigma=0.3, samples=6, seed=5)(model, x, y))

    def test_is_zero_on_a_linear_model(self):
        model, _ = linear()
        assert not VarGrad(samples=4)(model, *batch()).any()

    def test_a_large_mean_does_not_drown_the_variance(self):
        class Steep(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return (x.flatten(1).square() / 2 + 1e4 * x.flatten(1)).sum(1, keepdim=True)

        x = batch(dtype=torch.float32)[0]
        found = VarGrad(sigma=0.3, samples=200)(Steep(), x, 0)
        assert found.mean().item() == pytest.approx(0.09, rel=0.05)


class TestInternalInfluence:
    def test_the_score_at_the_image_is_the_gradient(self):
        model, (x, y) = network(), batch()
        torch.testing.assert_close(InternalInfluence(distribution=Point())(model, x, y), Gradient()(model, x, y))

    @pytest.mark.parametrize("rule", RULES)
    def test_the_score_on_a_line_times_the_way_is_integrated_gradients(self, rule):
        model, (x, y) = network(), batch()
        found = InternalInfluence(distribution=Line(steps=7, rule=rule, baseline=Constant(0.3)))(model, x, y)
        expected = IntegratedGradients(steps=7, rule=rule, baseline=Constant(0.3))(model, x, y)
        torch.testing.assert_close((x - 0.3) * found, expected)

    def test_the_score_in_noise_is_smooth_grad(self):
        model, (x, y) = network(), batch()
        found = InternalInfluence(distribution=Gaussian(sigma=0.2, samples=6), seed=4)(model, x, y)
        torch.testing.assert_close(found, SmoothGrad(sigma=0.2, samples=6, seed=4)(model, x, y))

    def test_a_unit_at_the_image_equals_captum(self):
        captum = pytest.importorskip("captum.attr")
        model, (x, y) = network().eval(), batch()
        found = InternalInfluence(layer="0", channel=2, distribution=Point())(model, x, y)
        theirs = captum.NeuronGradient(model, model[0]).attribute(
            x.clone().requires_grad_(), neuron_selector=lambda outputs: outputs[:, 2].sum((1, 2))
        )
        torch.testing.assert_close(found, theirs.detach())

    @pytest.mark.parametrize(("layer", "position"), [("0", 0), ("5", 5)])
    def test_the_influence_of_all_units_on_a_line_equals_captum(self, layer, position):
        captum = pytest.importorskip("captum.attr")
        model, (x, y) = network().eval(), batch()
        found = unit_influence(
            model, layer, x, lambda z: z.gather(1, y[:, None])[:, 0], distribution=Line(steps=9), batch_size=7
        )
        theirs = captum.InternalInfluence(model, model[position]).attribute(
            x, target=y, n_steps=9, method="gausslegendre"
        )
        torch.testing.assert_close(found, theirs.detach().flatten(2).sum(2) if theirs.dim() > 2 else theirs.detach())

    @pytest.fixture
    def two_layers(self) -> tuple[nn.Module, Tensor, Tensor]:
        """h = A x, f = B h, and A as images."""
        model = nn.Sequential(nn.Flatten(), nn.Linear(108, 5), nn.Linear(5, 4)).double()
        return model, model[1].weight.detach().view(5, 3, 6, 6), model[2].weight.detach()

    def test_linear_layers_have_their_weights_as_influences(self, two_layers):
        model, inner, outer = two_layers
        x, y = batch()
        influence = unit_influence(model, "1", x, lambda z: z.gather(1, y[:, None])[:, 0])
        torch.testing.assert_close(influence, outer[y])
        given = InternalInfluence(layer="1", channel=3)(model, x, y)
        torch.testing.assert_close(given, inner[3].expand_as(x))
        best = InternalInfluence(layer="1")(model, x, y)
        torch.testing.assert_close(best, inner[outer[y].argmax(1)])

    def test_the_best_unit_follows_the_target_and_a_given_one_does_not(self):
        model, (x, y) = network(), batch()
        given, best = InternalInfluence(layer="0", channel=1), InternalInfluence(layer="0")
        assert torch.equal(given(model, x, y), given(model, x, (y + 1) % 4))
        assert not torch.allclose(best(model, x, y), best(model, x, (y + 1) % 4))

    def test_features_of_tokens_are_summed_over_the_tokens(self):
        class Tokens(nn.Module):
            def __init__(self):
                super().__init__()
                self.embed, self.head = nn.Linear(18, 5), nn.Linear(5, 4)

            def forward(self, x: Tensor) -> Tensor:
                return self.head(self.embed(x.flatten(2).view(len(x), 6, 18)).mean(1))

        model, (x, y) = Tokens().double(), batch()
        found = InternalInfluence(layer="embed", channel=3)(model, x, y)
        torch.testing.assert_close(found.view(9, 6, 18), model.embed.weight[3].detach().expand(9, 6, 18))
        influence = unit_influence(model, "embed", x, lambda z: z.gather(1, y[:, None])[:, 0])
        torch.testing.assert_close(influence, model.head.weight.detach()[y])

    def test_a_later_layer_may_work_in_place(self):
        model, (x, y) = network(), batch()
        expected = InternalInfluence(layer="0", channel=2)(model, x, y)
        in_place = nn.Sequential(*[nn.ReLU(inplace=True) if i == 1 else layer for i, layer in enumerate(model)])
        torch.testing.assert_close(InternalInfluence(layer="0", channel=2)(in_place, x, y), expected)

    @pytest.mark.parametrize(
        ("layer", "channel", "message"),
        [
            ("layers.conv", 0, "no layer 'layers.conv', the nearest are 'layers.conv2', 'layers.conv1'"),
            ("", 0, "no layer ''"),
            ("layers.conv1", 16, "channel must be below 16 in layer 'layers.conv1', got 16"),
        ],
    )
    def test_units_that_do_not_exist_are_named(self, layer, channel, message, digits, digits_model):
        with pytest.raises(UserError, match=message):
            InternalInfluence(layer=layer, channel=channel)(digits_model, digits[0][:2], digits[1][:2])

    @pytest.mark.parametrize("channel", [None, 0])
    @pytest.mark.parametrize(
        ("layer", "message"),
        [("shared", "it ran 2 times"), ("unused", "it ran 0 times"), ("split", "must return .* got tuple")],
    )
    def test_layers_without_units_are_refused_and_leave_no_hook(self, layer, message, channel):
        class Split(nn.Module):
            def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
                return x, x

        class Odd(nn.Module):
            def __init__(self):
                super().__init__()
                self.shared, self.unused, self.split = nn.Linear(108, 108), nn.Linear(1, 1), Split()

            def forward(self, x: Tensor) -> Tensor:
                return self.split(self.shared(self.shared(x.flatten(1))))[0]

        model = Odd().double()
        with pytest.raises(UserError, match=message):
            InternalInfluence(layer=layer, channel=channel)(model, *batch())
        assert not any(module._forward_hooks for module in model.modules())

    def test_a_channel_needs_its_layer(self):
        with pytest.raises(UserError, match="needs the layer"):
            InternalInfluence(channel=1)


def middle_of_the_box(count: int = 9) -> Tensor:
    """Images so far from 0 and 1 that the box does not get into the way."""
    return 0.4 + 0.2 * batch(count)[0]


class TestNearestBoundary:
    def closed_form(self, model: nn.Module, weights: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The projection onto the nearest boundary of a linear model, the prediction there and here."""
        logits = model(x).detach()
        here = logits.argmax(1)
        normals = weights[here][:, None] - weights
        margins = logits.gather(1, here[:, None]) - logits
        distances = margins / normals.flatten(2).norm(dim=2)
        there = distances.scatter(1, here[:, None], torch.inf).argmin(1)
        rows = torch.arange(len(x))
        normal, margin = normals[rows, there], margins[rows, there]
        step = margin / normal.flatten(1).square().sum(1)
        return x - step.view(-1, 1, 1, 1) * normal, there, here

    @pytest.mark.parametrize("attack", [DeepFool(threat=L2), FAB(threat=L2, steps=3)], ids=lambda a: type(a).__name__)
    def test_on_a_linear_model_it_is_the_projection(self, attack: Attack):
        model, weights = linear()
        x = middle_of_the_box()
        expected, there, here = self.closed_form(model, weights, x)
        boundary = nearest_boundary(model, x, attack, bisections=30)
        assert boundary.found.all() and boundary.success_rate == 1
        torch.testing.assert_close(boundary.points, expected, rtol=0, atol=1e-6)
        assert torch.equal(model(boundary.points).argmax(1), there) and (there != here).all()
        gap = model(boundary.points).gather(1, there[:, None]) - model(boundary.points).gather(1, here[:, None])
        assert (gap >= 0).all() and (gap < 1e-6).all()

    def test_the_prediction_changes_within_the_last_bracket(self):
        model, (x, _) = network().eval(), batch(40)
        boundary = nearest_boundary(model, x, SEARCH, bisections=25)
        before = boundary.points + (x - boundary.points) * 1e-5
        here = model(x).argmax(1)
        assert boundary.found.all()
        assert (model(boundary.points).argmax(1) != here).all()
        assert torch.equal(model(before).argmax(1), here)

    def test_without_bisection_it_is_the_attack_s_point_and_each_halving_halves_the_way(self):
        model, (x, _) = network().eval(), batch()

        def attack(model: nn.Module, x: Tensor, y: Tensor, *, generator: object) -> Tensor:
            return x + 3 * (SEARCH.minimum_perturbation(model, x, y)[0] - x)

        start = nearest_boundary(model, x, attack, bisections=0).points
        torch.testing.assert_close(start, attack(model, x, model(x).argmax(1), generator=None))
        exact = nearest_boundary(model, x, attack, bisections=40).points
        lengths = (start - x).flatten(1).norm(dim=1)
        for bisections in (1, 4, 9):
            off = (nearest_boundary(model, x, attack, bisections=bisections).points - exact).flatten(1).norm(dim=1)
            assert (off <= lengths * 2.0**-bisections).all() and (off > 0).all()

    def test_where_the_attack_fails_there_is_no_point(self):
        model, (x, _) = network(), batch()

        def attack(model: nn.Module, x: Tensor, y: Tensor, *, generator: object) -> Tensor:
            succeeds = (torch.arange(len(x)) % 3 == 0).view(-1, 1, 1, 1)
            return SEARCH.minimum_perturbation(model, x, y)[0].where(succeeds, x)

        boundary = nearest_boundary(model, x, attack)
        assert boundary.found.tolist() == [True, False, False] * 3
        assert boundary.success_rate == pytest.approx(1 / 3)
        assert boundary.points[boundary.found].isfinite().all() and boundary.points[~boundary.found].isnan().all()

    def test_a_random_attack_draws_for_each_sample_whatever_the_batch(self):
        model, (x, _) = network(), batch(12)
        attack = PGD(threat=ThreatModel("l2", 3), steps=3)
        whole = nearest_boundary(model, x, attack, generator=streams(12))
        parts = nearest_boundary(model, x, attack, generator=streams(12), batch_size=5)
        one = nearest_boundary(model, x[4:5], attack, generator=SampleStreams(0, [4]))
        assert whole.found.any()
        torch.testing.assert_close(parts.points, whole.points, equal_nan=True)
        torch.testing.assert_close(one.points, whole.points[4:5], equal_nan=True)

    def test_leaves_no_trace(self):
        model, (x, _) = network(), batch()
        state = {name: value.clone() for name, value in model.state_dict().items()}
        nearest_boundary(model, x, SEARCH, bisections=2)
        assert model.training and all(parameter.requires_grad for parameter in model.parameters())
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())

    @pytest.mark.parametrize("wrong", [{"bisections": -1}, {"batch_size": 0}])
    def test_mistakes_are_named(self, wrong):
        with pytest.raises(UserError, match=next(iter(wrong))):
            nearest_boundary(network(), batch()[0], SEARCH, **wrong)
        with pytest.raises(UserError, match="bisections"):
            BoundarySaliency(attack=SEARCH, bisections=-1)


class TestBoundaryAttributions:
    def test_saliency_on_a_linear_model_is_the_gradient_and_of_the_margin_the_normal(self):
        model, weights = linear()
        x, y = middle_of_the_box(), batch()[1]
        method = BoundarySaliency(attack=DeepFool(threat=L2))
        torch.testing.assert_close(method(model, x, y), weights[y])
        _, there, here = TestNearestBoundary().closed_form(model, weights, x)
        # Just beyond the boundary, the strongest rival of the prediction is the class over there.
        torch.testing.assert_close(method(model, x, scores.margin(here)), weights[here] - weights[there])

    def test_saliency_is_the_gradient_at_the_boundary(self):
        model, (x, y) = network(), batch()
        points = nearest_boundary(model, x, SEARCH).points
        found = BoundarySaliency(attack=SEARCH)(model, x, y)
        torch.testing.assert_close(found, Gradient()(model, points, y))
        assert not torch.allclose(found, Gradient()(model, x, y), rtol=0.01)

    @pytest.mark.parametrize("rule", RULES)
    def test_integrated_gradients_are_complete_from_the_boundary(self, rule):
        model, (x, y) = network(), batch()
        points = nearest_boundary(model, x, SEARCH).points
        found = BoundaryIntegratedGradients(attack=SEARCH, steps=30, rule=rule)(model, x, y)
        total = output(model, x, y) - output(model, points, y)
        torch.testing.assert_close(found.sum((1, 2, 3)), total, rtol=1e-3, atol=1e-5)
        of_margin = scores.margin(model(x).argmax(1))  # zero at the boundary
        found = BoundaryIntegratedGradients(attack=SEARCH, steps=30, rule=rule)(model, x, of_margin)
        torch.testing.assert_close(found.sum((1, 2, 3)), of_margin(model(x)).detach(), rtol=1e-3, atol=1e-3)

    def test_wrong_predictions_have_a_boundary_too(self, digits, digits_model):
        x, y = digits[0][:40], (digits[1][:40] + 1) % 10
        assert BoundarySaliency(attack=SEARCH)(digits_model, x, y).isfinite().all()

    def test_maps_without_a_boundary_are_undefined_and_counted(self, digits, digits_model):
        def attack(model: nn.Module, x: Tensor, y: Tensor, *, generator: object) -> Tensor:
            return SEARCH.minimum_perturbation(model, x, y)[0].where((y % 2 == 0).view(-1, 1, 1, 1), x)

        x, y = digits[0][:20], digits[1][:20]
        even = digits_model(x).argmax(1) % 2 == 0
        for method in (BoundarySaliency(attack=attack), BoundaryIntegratedGradients(attack=attack, steps=3)):
            maps = method(digits_model, x, y)
            assert torch.equal(maps.isfinite().all((1, 2, 3)), even) and torch.equal(maps.isnan().all((1, 2, 3)), ~even)
            seen = Probe(model=digits_model, x=x, y=y, index=torch.arange(20), method=method, threat=L2)
            metric = GiniIndex()
            metric.update(seen)
            assert metric.valid_share().item() == pytest.approx(even.double().mean().item())
            assert metric.compute().isfinite()

    @pytest.mark.parametrize("path", sorted(CONF.glob("metrics/*.yaml")), ids=lambda path: path.stem)
    def test_a_map_of_nan_is_undefined_for_every_metric_of_maps(self, path, digits, digits_model):
        (metric,) = build_all(load_yaml(path), "metrics").values()
        never = BoundarySaliency(attack=lambda model, x, y, *, generator: x, bisections=0)
        seen = probe(digits_model, digits[0][:12], digits[1][:12], slice(None)).using(never)
        if metric.uses_attribution and "map_attack" not in metric.needs:  # which refuses the method itself
            assert not metric.per_sample(seen).isfinite().any()

    def test_what_cannot_be_integrated_is_refused(self):
        with pytest.raises(UserError, match=r"rule must be one of .*got 'simpson'"):
            BoundaryIntegratedGradients(attack=SEARCH, rule="simpson")
        with pytest.raises(UserError, match="cannot be differentiated"):
            BoundarySaliency(attack=SEARCH)(network(), *batch(), create_graph=True)


class TestScores:
    LOGITS = torch.tensor([[1.0, 3.0, 0.5], [2.0, -1.0, 2.5]], dtype=torch.float64)
    LABELS = torch.tensor([0, 2])

    @pytest.mark.parametrize(
        ("score", "expected"),
        [
            (scores.margin, lambda z, y: torch.tensor([1.0 - 3.0, 2.5 - 2.0]).double()),
            (scores.probability, lambda z, y: z.softmax(1)[[0, 1], y]),
            (scores.log_probability, lambda z, y: z.softmax(1)[[0, 1], y].log()),
            (scores.cross_entropy, lambda z, y: F.cross_entropy(z, y, reduction="none")),
        ],
    )
    def test_each_equals_its_formula(self, score: Callable, expected):
        torch.testing.assert_close(score(self.LABELS)(self.LOGITS), expected(self.LOGITS, self.LABELS))
        torch.testing.assert_close(score(2)(self.LOGITS), score(torch.tensor([2, 2]))(self.LOGITS))

    @pytest.mark.parametrize("score", [scores.margin, scores.probability, scores.cross_entropy])
    def test_each_can_be_explained_in_inference_mode(self, score: Callable):
        model, (x, y) = network(), batch()
        expected = Gradient()(model, x, score(y))
        with torch.inference_mode():
            found = Gradient()(model, x.clone(), score(y.clone()))
        torch.testing.assert_close(found, expected)
        assert found.any((1, 2, 3)).all()

    @pytest.mark.parametrize("labels", [torch.zeros(3, dtype=torch.int64), torch.zeros(2), 1.5])
    def test_labels_that_do_not_fit_are_refused(self, labels):
        with pytest.raises(UserError, match="must be int64 of shape"):
            scores.margin(labels)(self.LOGITS)


class TestAllOfThem:
    @named
    @pytest.mark.parametrize("batch_size", [1, 7, 1000])
    def test_the_internal_batch_changes_nothing_and_bounds_what_the_model_sees(self, method: Attribution, batch_size):
        model, (x, y) = network(), batch(12)
        expected = method(model, x, y)
        seen = []
        model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
        torch.testing.assert_close(replace(method, batch_size=batch_size)(model, x, y), expected)
        assert max(seen) <= batch_size

    @named
    def test_samples_do_not_see_each_other(self, method: Attribution):
        model, (x, y) = network(), batch(12)
        whole = method(model, x, y, generator=streams(12))
        order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
        shuffled = method(model, x[order], y[order], generator=SampleStreams(0, order.tolist()))
        torch.testing.assert_close(shuffled, whole[order])

    @named
    def test_shape_dtype_precision_and_empty_batches(self, method: Attribution):
        model, (x, y) = network(torch.float32), batch(4, torch.float32)
        found = method(model, x, y)
        assert found.shape == x.shape and found.dtype == torch.float32 and found.isfinite().all()
        assert method(model, x.double(), y).dtype == torch.float64
        assert method(model, x[:0], y[:0]).shape == (0, 3, 6, 6)

    @named
    def test_the_model_the_image_and_the_random_state_are_as_before(self, method: Attribution):
        model, (x, y) = network(), batch()
        model[1].eval()
        model[5].weight.requires_grad_(False)
        modes = [module.training for module in model.modules()]
        flags = [parameter.requires_grad for parameter in model.parameters()]
        before = [x.clone(), *[value.clone() for value in model.state_dict().values()], torch.get_rng_state()]
        method(model, x, y)
        after = [x, *model.state_dict().values(), torch.get_rng_state()]
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
        assert [module.training for module in model.modules()] == modes
        assert [parameter.requires_grad for parameter in model.parameters()] == flags
        assert all(parameter.grad is None for parameter in model.parameters())
        assert not any(module._forward_hooks for module in model.modules())

    @named
    def test_works_in_inference_mode(self, method: Attribution):
        model, (x, y) = network(), batch()
        expected = method(model, x, y)
        with torch.inference_mode():
            found = method(model, x.clone(), y.clone())
        torch.testing.assert_close(found, expected)

    @named
    def test_a_plain_generator_is_enough(self, method: Attribution):
        model, (x, y) = network(), batch()
        first, again = (method(model, x, y, generator=torch.Generator().manual_seed(3)) for _ in range(2))
        assert torch.equal(first, again)

    @pytest.mark.parametrize("method", differentiable.values(), ids=differentiable)
    def test_differentiable_with_respect_to_the_image_and_the_weights(self, method: Attribution):
        model, (x, y) = network(), batch(2)
        leaves = [x.requires_grad_(), model[0].weight]
        gradients = torch.autograd.grad(method(model, x, y, create_graph=True).square().sum(), leaves)
        for leaf, gradient in zip(leaves, gradients, strict=True):
            direction = torch.randn(leaf.shape, generator=torch.Generator().manual_seed(0), dtype=leaf.dtype)
            values = []
            for step in (1e-6, -2e-6):  # up from here, then down to the other side
                with torch.no_grad():
                    leaf += step * direction
                values.append(method(model, x, y).square().sum())
            with torch.no_grad():
                leaf += 1e-6 * direction
            expected = (values[0] - values[1]) / 2e-6
            torch.testing.assert_close((gradient * direction).sum(), expected, rtol=1e-5, atol=1e-8)
