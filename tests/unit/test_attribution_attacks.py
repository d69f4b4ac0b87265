"""Attribution attacks: they change the map and not the prediction, much more than noise does, and leave no trace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xrobust.attacks import (
    PGD,
    Attack,
    AttributionAttack,
    FixedMap,
    HalfTurn,
    MassCentreAttack,
    TargetMapAttack,
    TopKAttack,
    mass_centre,
    smoothed,
)
from xrobust.attacks.attribution import Goal, relevance_shares
from xrobust.attributions import Attribution, Gradient, IntegratedGradients, SmoothGrad
from xrobust.errors import UserError
from xrobust.metrics import magnitude
from xrobust.metrics.topk_intersection import topk_intersection
from xrobust.models import SmallCNN
from xrobust.randomness import SampleStreams
from xrobust.threat import ThreatModel

LINF = ThreatModel("linf", "0.2")
METHOD = Gradient()


@pytest.fixture
def batch(digits: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return digits[0][:48], digits[1][:48]


def on_the_gradient(kind: type[AttributionAttack], threat: ThreatModel = LINF, **options) -> AttributionAttack:
    return kind(threat=threat, attribution=METHOD, **options)


def overlap(model: nn.Module, x: Tensor, z: Tensor, y: Tensor, method: Attribution = METHOD) -> Tensor:
    """The top-10% intersection of the maps of x and z, (N,)."""
    first, second = (magnitude(method(model, points, y)).flatten(1) for points in (x, z))
    return topk_intersection(first, second, round(0.1 * first.shape[1]))


def noisy(x: Tensor, threat: ThreatModel = LINF) -> Tensor:
    return threat.random_start(x, torch.Generator().manual_seed(0))


def predicted(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x).argmax(1)


class TestTopK:
    @pytest.mark.parametrize(
        ("norm", "eps", "gap"), [("linf", "0.2", 0.25), ("l2", "1", 0.2), ("l1", "6", 0.15)], ids=["linf", "l2", "l1"]
    )
    def test_does_much_more_than_noise_of_the_same_size_and_keeps_every_prediction(
        self, digits_model, batch, norm, eps, gap
    ):
        (x, y), threat = batch, ThreatModel(norm, eps)
        z = on_the_gradient(TopKAttack, threat)(digits_model, x, y)
        assert threat.contains(z, x).all()
        assert torch.equal(predicted(digits_model, z), predicted(digits_model, x))
        noise = overlap(digits_model, x, noisy(x, threat), y).mean()
        assert overlap(digits_model, x, z, y).mean() < noise - gap

    def test_the_same_ball_is_large_enough_to_change_predictions(self, digits_model, batch):
        x, y = batch
        z = PGD(threat=LINF)(digits_model, x, y)
        assert (predicted(digits_model, z) != predicted(digits_model, x)).double().mean() > 0.5

    @pytest.mark.parametrize("method", [IntegratedGradients(steps=8), SmoothGrad(samples=8)], ids=["ig", "smooth_grad"])
    def test_takes_any_differentiable_attribution(self, digits_model, batch, method):
        x, y = batch
        z = TopKAttack(threat=LINF, attribution=method)(digits_model, x, y)
        noise = overlap(digits_model, x, noisy(x), y, method).mean()
        assert overlap(digits_model, x, z, y, method).mean() < noise - 0.1

    def test_without_the_surrogate_a_relu_network_gives_no_direction(self, digits_model, batch):
        x, y = batch
        blind = overlap(digits_model, x, on_the_gradient(TopKAttack, softplus=None)(digits_model, x, y), y).mean()
        seeing = overlap(digits_model, x, on_the_gradient(TopKAttack)(digits_model, x, y), y).mean()
        assert blind > overlap(digits_model, x, noisy(x), y).mean() - 0.1
        assert seeing < blind - 0.2

    def test_further_restarts_never_do_less(self, digits_model, batch):
        x, y = batch
        once, thrice = (
            overlap(digits_model, x, on_the_gradient(TopKAttack, steps=3, restarts=n)(digits_model, x, y), y)
            for n in (1, 3)
        )
        assert (thrice <= once).all() and thrice.mean() < once.mean()

    def test_explains_the_label_and_keeps_the_prediction_even_where_they_differ(self, digits_model, batch):
        x, y = batch
        other = (y + 1) % 10
        z = on_the_gradient(TopKAttack)(digits_model, x, other)
        assert torch.equal(predicted(digits_model, z), predicted(digits_model, x))
        assert overlap(digits_model, x, z, other).mean() < overlap(digits_model, x, noisy(x), other).mean() - 0.2

    def test_what_is_descended_has_the_gradient_of_finite_differences(self, batch):
        x, y = batch[0][:4].double(), batch[1][:4]
        model = SmallCNN(num_classes=10, in_channels=1, image_size=8, activation="softplus").double()
        goal = on_the_gradient(TopKAttack).goal(METHOD(model, x, y), model(x))

        def loss(points: Tensor) -> Tensor:
            return goal.loss(METHOD(model, points, y, create_graph=True), model(points)).sum()

        leaf, way = x.clone().requires_grad_(), torch.linspace(-1, 1, x.numel()).view_as(x).double()
        (gradient,) = torch.autograd.grad(loss(leaf), leaf)
        numeric = (loss(x + 1e-5 * way) - loss(x - 1e-5 * way)) / 2e-5
        torch.testing.assert_close((gradient * way).sum(), numeric.detach(), rtol=1e-5, atol=1e-9)


def target_distance(model: nn.Module, x: Tensor, z: Tensor, y: Tensor) -> Tensor:
    clean, attacked = relevance_shares(METHOD(model, x, y)), relevance_shares(METHOD(model, z, y))
    return (attacked - clean.flip(1)).norm(dim=1)  # a half turn reverses the order of the pixels


class TestOtherGoals:
    def test_the_centre_of_mass_moves_further_than_under_noise(self, digits_model, batch):
        x, y = batch

        def moved(z: Tensor) -> Tensor:
            return (mass_centre(METHOD(digits_model, z, y)) - mass_centre(METHOD(digits_model, x, y))).norm(dim=1)

        z = on_the_gradient(MassCentreAttack)(digits_model, x, y)
        assert moved(z).mean() > 2 * moved(noisy(x)).mean()
        assert torch.equal(predicted(digits_model, z), predicted(digits_model, x))

    def test_the_centre_of_mass_is_the_mean_place_of_the_relevance(self):
        maps = torch.zeros(3, 2, 4, 5)
        maps[0, 0, 1, 3], maps[1, 0, 0, 0], maps[1, 1, 2, 4] = -2.0, 3.0, -1.0
        assert mass_centre(maps).tolist() == [[1, 3], [0.5, 1], [0, 0]]

    def test_the_map_comes_closer_to_the_target_than_it_was(self, digits_model, batch):
        x, y = batch
        z = on_the_gradient(TargetMapAttack, steps=20)(digits_model, x, y)
        start, end = target_distance(digits_model, x, x, y), target_distance(digits_model, x, z, y)
        assert (end <= start * (1 + 1e-6)).all() and end.mean() < 0.9 * start.mean()
        assert end.mean() < 0.9 * target_distance(digits_model, x, noisy(x), y).mean()
        assert torch.equal(predicted(digits_model, z), predicted(digits_model, x))

    def test_the_output_weight_holds_the_probabilities(self, digits_model, batch):
        x, y = batch

        def change(weight: float) -> Tensor:
            z = on_the_gradient(TargetMapAttack, output_weight=weight)(digits_model, x, y)
            return (digits_model(z).softmax(1) - digits_model(x).softmax(1)).norm(dim=1).mean()

        assert change(10.0) < 0.7 * change(0.0)

    def test_a_fixed_map_is_a_target_for_all_images_or_one_for_each(self, digits_model, batch):
        x, y = batch[0][:6], batch[1][:6]
        own = METHOD(digits_model, x, y)
        turned = on_the_gradient(TargetMapAttack, target=HalfTurn())(digits_model, x, y)
        fixed = on_the_gradient(TargetMapAttack, target=FixedMap(own.flip((-2, -1))))(digits_model, x, y)
        assert torch.equal(turned, fixed)
        assert FixedMap(torch.ones(1, 8, 8))(own).shape == own.shape
        with pytest.raises(UserError, match=r"\(7, 7\) does not fit maps \(6, 1, 8, 8\)"):
            FixedMap(torch.ones(7, 7))(own)

    def test_a_map_that_is_its_own_target_stays(self, digits_model, batch):
        x, y = batch[0][:4], batch[1][:4]
        own = FixedMap(METHOD(digits_model, x, y))
        assert torch.equal(on_the_gradient(TargetMapAttack, target=own)(digits_model, x, y), x)


ALL = pytest.mark.parametrize("kind", [TopKAttack, MassCentreAttack, TargetMapAttack])


class Frail(nn.Module):
    """A network that predicts the last class wherever the image is not one of those given."""

    def __init__(self, inner: nn.Module, images: Tensor):
        super().__init__()
        self.inner, self.images = inner, images

    def forward(self, x: Tensor) -> Tensor:
        logits = self.inner(x)
        moved = (x - self.images).square().flatten(1).sum(1, keepdim=True)
        return torch.cat([logits, logits.amax(1, keepdim=True) - 1e-3 + 1e6 * moved], 1)


@dataclass(frozen=True, kw_only=True)
class Heedless(TopKAttack):
    """A planted fault: takes the point of lowest loss of the surrogate, whatever the network predicts there."""

    def run(self, model, x, y, generator):
        best, lowest = x, torch.full((len(x),), torch.inf)
        goal, point = self.goal(METHOD(model, x, y), model(x)), self.threat.random_start(x, generator)
        for step in range(self.steps):
            point = point.detach().requires_grad_()
            with smoothed(model, self.beta(step)):
                loss = goal.loss(METHOD(model, point, y, create_graph=True), point)
            best = torch.where((loss < lowest).view(-1, 1, 1, 1), point, best)
            lowest = torch.minimum(loss.detach(), lowest)
            (gradient,) = torch.autograd.grad(loss.sum(), point)
            point = self.threat.project(point - self.alpha * self.threat.ascent(gradient), x)
        return best.detach()


class TestWhatIsReturned:
    @ALL
    def test_x_itself_where_every_other_point_changes_the_prediction(self, kind, digits_model, batch):
        x, y = batch[0][:6], batch[1][:6]
        assert torch.equal(on_the_gradient(kind, steps=4)(Frail(digits_model, x), x, y), x)

    @ALL
    def test_x_itself_of_a_linear_model_whose_gradient_cannot_change(self, kind, batch):
        x, y = batch
        linear = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        z = on_the_gradient(kind, output_weight=0.0)(linear, x, y) if kind is TargetMapAttack else None
        assert torch.equal(on_the_gradient(kind)(linear, x, y) if z is None else z, x)

    @ALL
    def test_x_itself_of_a_model_without_any_map(self, kind, batch):
        x, y = batch
        constant = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        nn.init.zeros_(constant[1].weight)
        assert torch.equal(on_the_gradient(kind)(constant, x, y), x)

    @ALL
    def test_no_point_whose_map_is_zero(self, kind, batch):
        """Half of the ball has no map at all: hiding there would make the comparison undefined, not bad."""

        class Dead(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                score = (x.square() * torch.linspace(1, 2, 64).view(8, 8)).sum((1, 2, 3))
                alive = (x[:, 0, 0, 0] > 0.5).to(x.dtype)
                return torch.stack([alive * score, torch.full_like(score, -1.0)], 1)

        x, y = batch[0].clone(), torch.zeros(len(batch[0]), dtype=torch.int64)
        x[:, 0, 0, 0] = 0.55
        z = on_the_gradient(kind, ThreatModel("linf", "0.1"))(Dead(), x, y)
        assert METHOD(Dead(), z, y).flatten(1).any(1).all() and (z != x).any()

    def test_every_sample_scores_no_worse_than_x(self, digits_model, batch):
        x, y = batch
        attack = on_the_gradient(TopKAttack, steps=2, step_size=0.2)
        goal = attack.goal(METHOD(digits_model, x, y), digits_model(x))

        def score(points: Tensor) -> Tensor:
            return goal.score(METHOD(digits_model, points, y), digits_model(points))

        assert (score(attack(digits_model, x, y)) <= score(x)).all()

    def test_an_attack_that_forgets_the_prediction_is_seen(self, digits_model, batch):
        (x, y), threat = batch, ThreatModel("linf", "0.4")
        careful, heedless = (on_the_gradient(kind, threat)(digits_model, x, y) for kind in (TopKAttack, Heedless))
        assert torch.equal(predicted(digits_model, careful), predicted(digits_model, x))
        assert not torch.equal(predicted(digits_model, heedless), predicted(digits_model, x))

    def test_the_prediction_is_won_back_where_a_random_start_lost_it(self, digits_model, batch, monkeypatch):
        (x, y), attack = batch, on_the_gradient(TopKAttack, ThreatModel("linf", "0.5"))

        def found() -> float:
            return (attack(digits_model, x, y) != x).flatten(1).any(1).double().mean().item()

        with_way_back = found()
        monkeypatch.setattr("xrobust.attacks.attribution.margin", lambda logits, labels: 0 * logits.sum(1))
        assert with_way_back == 1 and found() < 0.9


@ALL
class TestDraws:
    def test_equal_draws_for_each_sample_give_equal_results_in_any_batch(self, kind, digits_model, batch):
        model, x, y = digits_model.double(), batch[0][:7].double(), batch[1][:7]
        attack = kind(threat=LINF, attribution=SmoothGrad(samples=3), steps=3, restarts=2)
        whole = attack(model, x, y, generator=SampleStreams(5, range(7)))
        small = replace(attack, batch_size=3)(model, x, y, generator=SampleStreams(5, range(7)))
        rows = torch.tensor([4, 1])
        picked = attack(model, x[rows], y[rows], generator=SampleStreams(5, rows.tolist()))
        torch.testing.assert_close(small, whole)
        torch.testing.assert_close(picked, whole[rows])

    def test_no_images_are_no_problem(self, kind, digits_model, batch):
        x, y = batch[0][:0], batch[1][:0]
        assert on_the_gradient(kind)(digits_model, x, y, generator=SampleStreams(0, [])).shape == x.shape


class Functional(nn.Module):
    """ReLU as functions and methods, in and out of modules, plain, leaky and in place."""

    def __init__(self, relu: Callable[[Tensor], Tensor], leaky: Callable[[Tensor], Tensor]):
        super().__init__()
        self.relu, self.leaky = relu, leaky
        self.weights = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.leaky(self.weights(self.relu(self.weights(x))))


BETA = 7.0
RELUS = [nn.ReLU(), nn.ReLU(inplace=True), F.relu, torch.relu, Tensor.relu, torch.relu_, Tensor.relu_]
LEAKY = {
    "module": nn.LeakyReLU(0.2),
    "inplace": nn.LeakyReLU(0.2, inplace=True),
    "F": lambda u: F.leaky_relu(u, 0.2),
    "F_": lambda u: F.leaky_relu_(u, 0.2),
}


class TestSurrogate:
    @pytest.mark.parametrize("relu", RELUS, ids=["module", "inplace", "F", "torch", "method", "torch_", "method_"])
    @pytest.mark.parametrize("leaky", LEAKY.values(), ids=LEAKY)
    def test_is_the_softplus_network_however_relu_is_written(self, relu, leaky):
        x, model = torch.randn(5, 6), Functional(relu, leaky)
        smooth = Functional(nn.Softplus(BETA), lambda u: 0.2 * u + 0.8 * F.softplus(u, BETA))
        smooth.load_state_dict(model.state_dict())
        before = model(x)
        with smoothed(model, BETA):
            torch.testing.assert_close(model(x), smooth(x))
        assert torch.equal(model(x), before) and not torch.allclose(before, smooth(x))

    @pytest.mark.parametrize("relu", [F.relu_, lambda u: F.relu(u, inplace=True)], ids=["relu_", "inplace"])
    def test_what_is_written_in_place_counts_and_can_be_differentiated(self, relu):
        class Statement(Functional):
            def forward(self, x: Tensor) -> Tensor:
                u = self.weights(x)
                self.relu(u)
                return self.leaky(u)

        def gradient(model: nn.Module) -> Tensor:
            leaf = x.clone().requires_grad_()
            return torch.autograd.grad(model(leaf).square().sum(), leaf)[0]

        x, model = torch.randn(5, 6), Statement(relu, nn.Identity())
        smooth = Functional(nn.Softplus(BETA), nn.Identity())
        smooth.load_state_dict(model.state_dict())
        smooth.forward = lambda x: F.softplus(smooth.weights(x), BETA)
        with smoothed(model, BETA):
            torch.testing.assert_close(gradient(model), gradient(smooth))

    def test_of_a_convolutional_network_has_its_map_and_its_second_derivative(self, digits_model, batch):
        x, y = batch[0][:5], batch[1][:5]
        smooth = SmallCNN(num_classes=10, in_channels=1, image_size=8, activation={"name": "softplus", "beta": BETA})
        smooth.load_state_dict(digits_model.state_dict())

        def bent(model: nn.Module) -> tuple[Tensor, Tensor]:
            leaf = x.clone().requires_grad_()
            gradient = METHOD(model, leaf, y, create_graph=True)
            return gradient.detach(), torch.autograd.grad(gradient.square().sum(), leaf)[0]

        with smoothed(digits_model, BETA):
            found = bent(digits_model)
        for actual, expected in zip(found, bent(smooth), strict=True):
            torch.testing.assert_close(actual, expected)
        assert not bent(digits_model)[1].any() and found[1].any()

    def test_touches_only_what_the_model_computes(self, digits_model, batch):
        u = torch.linspace(-1, 1, 9)
        with smoothed(digits_model, BETA):
            digits_model(batch[0][:2])
            assert torch.equal(F.relu(u), u.clamp(min=0))

    def test_none_is_the_network_as_it_is(self, digits_model, batch):
        before = digits_model(batch[0][:3])
        with smoothed(digits_model, None):
            assert torch.equal(digits_model(batch[0][:3]), before)

    def test_leaves_no_trace_even_when_the_forward_pass_fails(self, digits_model, batch):
        before, u = digits_model(batch[0][:3]), torch.linspace(-1, 1, 9)
        with smoothed(digits_model, BETA):
            for _ in range(2):
                with pytest.raises(RuntimeError, match="shape"):
                    digits_model(torch.zeros(1, 1, 5, 5))
                assert torch.equal(F.relu(u), u.clamp(min=0))
        with pytest.raises(KeyError), smoothed(digits_model, BETA):
            raise KeyError
        assert torch.equal(digits_model(batch[0][:3]), before)
        assert not digits_model._forward_hooks and not digits_model._forward_pre_hooks
        assert not digits_model._forward_hooks_always_called

    def test_grows_geometrically_from_the_first_beta_to_the_last(self):
        attack = on_the_gradient(TopKAttack, steps=3, softplus=[10, 1000])
        assert [attack.beta(step) for step in range(3)] == pytest.approx([10, 100, 1000])
        assert on_the_gradient(TopKAttack, steps=1, softplus=(10, 1000)).beta(0) == 10
        assert on_the_gradient(TopKAttack, softplus=None).beta(0) is None


@dataclass(frozen=True, kw_only=True)
class Blocky(Gradient):
    """A method that says that it has no derivative."""

    differentiable: ClassVar[bool] = False


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: TopKAttack(threat=LINF, attribution=Blocky()),
            "TopKAttack.attribution must be differ.*Blocky",
        ),
        (lambda: replace(on_the_gradient(TopKAttack), attribution=Blocky()), "must be differentiable, got Blocky"),
        (lambda: on_the_gradient(TopKAttack, share=0), "TopKAttack.share must be above 0 and at most 1, got 0"),
        (lambda: on_the_gradient(TopKAttack, steps=0), "TopKAttack.steps must be .* at least 1, got 0"),
        (lambda: on_the_gradient(TopKAttack, restarts=0), "TopKAttack.restarts must be .* at least 1, got 0"),
        (lambda: on_the_gradient(TopKAttack, batch_size=0), "TopKAttack.batch_size must be .* at least 1, got 0"),
        (lambda: on_the_gradient(TopKAttack, step_size=0), "TopKAttack.step_size must be above 0, got 0"),
        (lambda: on_the_gradient(TopKAttack, softplus=[0, 10]), r"softplus must be two numbers above 0.*\[0, 10\]"),
        (lambda: on_the_gradient(TopKAttack, softplus=[10]), r"softplus must be two numbers above 0.*\[10\]"),
        (lambda: on_the_gradient(MassCentreAttack, mode="train"), "MassCentreAttack.mode must be one of 'eval'"),
        (
            lambda: on_the_gradient(TargetMapAttack, output_weight=-1),
            "TargetMapAttack.output_weight must be .* least 0",
        ),
    ],
)
def test_a_value_outside_its_range_is_named(build: Callable[[], Attack], message: str):
    with pytest.raises(UserError, match=message):
        build()


def test_a_goal_of_ones_own_is_one_method(digits_model: nn.Module, batch: tuple[Tensor, Tensor]):
    @dataclass(frozen=True, kw_only=True)
    class Fade(AttributionAttack):
        """Makes the gradient small."""

        def goal(self, maps: Tensor, logits: Tensor) -> Goal:
            def size(maps: Tensor, logits: Tensor) -> Tensor:
                return maps.square().flatten(1).sum(1)

            return Goal(size, size)

    x, y = batch
    z = on_the_gradient(Fade)(digits_model, x, y)
    assert METHOD(digits_model, z, y).norm() < 0.9 * METHOD(digits_model, noisy(x), y).norm()


def test_the_protocol_can_be_written_down():
    attack = on_the_gradient(TopKAttack, steps=7)
    assert attack.describe()["attribution"] == "Gradient(batch_size=256)" and attack.describe()["softplus"] == [5, 50]
    assert "steps 7" in str(attack) and attack.with_eps("0.1").alpha == pytest.approx(2.5 * 0.1 / 7)
