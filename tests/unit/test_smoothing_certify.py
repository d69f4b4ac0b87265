"""Certificates and predictions of smoothed classifiers, on linear ones whose radius is known, and on digits."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor, nn

from xrobust.attacks import PGD
from xrobust.attributions import SmoothedGradient
from xrobust.attributions.scores import log_probability, margin
from xrobust.errors import UserError
from xrobust.randomness import SampleStreams, normal_like
from xrobust.smoothing import (
    ABSTAIN,
    Certify,
    CertifyAt,
    GaussianNoise,
    SmoothedClassifier,
    SmoothedPrediction,
    UnderNoise,
    UniformNoise,
    count_votes,
    predict,
    streams_of,
)
from xrobust.threat import ThreatModel

NOISE = GaussianNoise(sigma=0.5)
CERTIFY = Certify(noise=NOISE, n=1000, batch_size=300)
Digits = tuple[Tensor, Tensor]


class HalfSpace(nn.Module):
    """Two classes, told apart by the first pixel: under N(0, σ²I) the true radius is the distance |x_0 − 0.5|.

    `P(f(x + δ) = 1) = Φ((x_0 − 0.5)/σ)`, so that R is σ · Φ⁻¹ of it.
    """

    def forward(self, x: Tensor) -> Tensor:
        score = x.flatten(1)[:, 0] - 0.5
        return torch.stack([-score, score], 1)


def half_space_images(count: int) -> Tensor:
    x = torch.zeros(count, 1, 4, 4)
    x[:, 0, 0, 0] = torch.linspace(-0.7, 1.7, count)
    return x


def test_certified_radii_of_a_half_space_stay_below_the_true_ones_and_come_near() -> None:
    x = half_space_images(400)
    found = CERTIFY(HalfSpace(), x)
    true = (x[:, 0, 0, 0] - 0.5).abs().double()
    named = found.prediction != ABSTAIN
    wrong_class = named & (found.prediction != (x[:, 0, 0, 0] > 0.5).long())
    failures = ((found.radius > true) & named) | wrong_class
    assert failures.sum() <= 3, "α 0.001 of 400"
    middle = named & (true < 0.8)
    assert (true - found.radius)[middle].max() < 0.2 and named.float().mean() > 0.9
    assert (found.prediction[true < 0.005] == ABSTAIN).all() and (found.radius[~named] == 0).all()
    assert (found.samples == 1100).all()


def test_uniform_noise_certifies_in_l1() -> None:
    """P = 1/2 + (x_0 − 0.5)/(2λ), so the true L1 radius is again the distance to the boundary."""
    noise = UniformNoise(sigma=0.5)
    x = half_space_images(100)[25:75]
    found = Certify(noise=noise, norm="l1", n=4000)(HalfSpace(), x)
    true = (x[:, 0, 0, 0] - 0.5).abs().double()
    assert (found.radius <= true).all() and (true - found.radius).max() < 0.12


def test_the_sequential_version_answers_as_certify_does_with_fewer_samples() -> None:
    x = half_space_images(200)
    found = CertifyAt(noise=NOISE, n=1000, at=0.4, batch_size=300)(HalfSpace(), x)
    true = (x[:, 0, 0, 0] - 0.5).abs()
    certified = found.prediction != ABSTAIN
    assert not certified[true < 0.4].any()
    assert certified[true > 0.6].all()
    assert (found.radius == 0.4 * certified.double()).all()
    assert found.samples.double().mean() < 0.5 * 1100 and found.samples.max() <= 1100


def test_a_radius_that_no_count_can_prove_is_refused() -> None:
    with pytest.raises(UserError, match=r"at must be below 1\..* n=1000 samples"):
        CertifyAt(noise=NOISE, n=1000, at=1.4)(HalfSpace(), half_space_images(2))


@pytest.mark.parametrize("procedure", [CERTIFY, CertifyAt(noise=NOISE, n=1000, at=0.2, batch_size=300)])
def test_results_depend_neither_on_the_batch_size_nor_on_the_company(procedure, digits: Digits, digits_model) -> None:
    x, index = digits[0][:6], [3, 5, 8, 9, 11, 40]
    whole = procedure(digits_model, x, seed=1, index=index)
    alone = replace(procedure, batch_size=17)(digits_model, x[[4]], seed=1, index=[11])
    other = procedure(digits_model, x, seed=2, index=index)
    assert torch.equal(alone.votes[0], whole.votes[4]) and torch.equal(alone.radius[0], whole.radius[4])
    assert torch.equal(alone.samples[0], whole.samples[4])
    assert not torch.equal(other.votes, whole.votes)


def test_no_attack_within_the_radius_changes_the_smoothed_class(digits: Digits, digits_model) -> None:
    x, y = digits[0][:20], digits[1][:20]
    noise = GaussianNoise(sigma=0.25)
    found = Certify(noise=noise, n=2000)(digits_model, x)
    right = found.prediction == y
    assert right.sum() > 5
    draws = 0.25 * torch.randn(50, *x.shape)
    under = UnderNoise(digits_model, draws)
    moved = PGD(threat=ThreatModel("l2", 2), steps=20)(under, x, y) - x
    length = moved.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    at_radius = (x + moved / length * found.radius.float().view(-1, 1, 1, 1))[right]
    assert (predict(digits_model, at_radius, noise, n=2000) == y[right]).all()


def test_votes_are_counted_of_noise_that_is_not_clipped(digits: Digits) -> None:
    class OutOfRange(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            outside = ((x < 0) | (x > 1)).flatten(1).any(1).float()
            return torch.stack([1 - outside, outside], 1)

    votes = count_votes(OutOfRange(), digits[0][:3], 70, NOISE, streams_of(0, range(3), torch.device("cpu")), 50)
    assert votes.tolist() == [[0, 70]] * 3


@pytest.mark.parametrize("batch_size", [1, 50, 64, 200])
def test_no_pass_is_larger_than_the_batch_size(batch_size: int) -> None:
    class Watched(HalfSpace):
        largest = 0

        def forward(self, x: Tensor) -> Tensor:
            self.largest = max(self.largest, len(x))
            return super().forward(x)

    model = Watched()
    votes = count_votes(
        model, half_space_images(3), 150, NOISE, streams_of(0, range(3), torch.device("cpu")), batch_size
    )
    assert 0 < model.largest <= batch_size and votes.sum(1).tolist() == [150] * 3


def test_outputs_that_are_not_finite_are_an_error() -> None:
    class Broken(HalfSpace):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) / 0

    with pytest.raises(RuntimeError, match="not finite"):
        CERTIFY(Broken(), half_space_images(1))


def test_the_model_is_in_evaluation_mode_and_left_as_it_was(digits: Digits) -> None:
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(64, 10)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.inference_mode():
        CERTIFY(model, digits[0][:2])
    assert model.training and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"alpha": 0.7}, "alpha must lie between 0 and 0.5"),
        ({"n": 0}, "Certify.n must be an integer of at least 1"),
        ({"norm": "l3"}, "Certify.norm must be one of"),
    ],
)
def test_mistakes_are_one_sentence(arguments: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        Certify(**{"noise": NOISE, **arguments})


# Prediction.


def test_prediction_abstains_near_the_boundary_and_is_else_right() -> None:
    x = half_space_images(200)
    found = predict(HalfSpace(), x, NOISE, n=500, alpha=0.01)
    truth = (x[:, 0, 0, 0] > 0.5).long()
    distance = (x[:, 0, 0, 0] - 0.5).abs()
    assert (found[distance < 0.02] == ABSTAIN).float().mean() > 0.5
    named = found != ABSTAIN
    assert (found[named] != truth[named]).sum() <= 3 and named[distance > 0.2].all()


def smoothed(model: nn.Module, output: str = "votes", **more) -> SmoothedClassifier:
    return SmoothedClassifier(model, NOISE, (1, 8, 8), samples=60, output=output, **more).eval()


def test_the_smoothed_network_votes_and_averages(digits: Digits, digits_model) -> None:
    x = digits[0][:5]
    votes, log_mean = smoothed(digits_model)(x), smoothed(digits_model, "log_probability", draws_at_once=7)(x)
    draws = smoothed(digits_model).draws
    with torch.no_grad():
        logits = torch.stack([digits_model(x + draw) for draw in draws])
    expected = torch.stack([(logits.argmax(2) == c).sum(0) for c in range(10)], 1)
    assert torch.equal(votes.long(), expected) and (votes.sum(1) == 60).all()
    torch.testing.assert_close(log_mean.exp(), logits.softmax(2).mean(0))


def test_a_denoiser_comes_first(digits: Digits, digits_model) -> None:
    class Halved(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 0.5 * x

    x = digits[0][:3]
    ours = smoothed(digits_model, "log_probability", denoiser=Halved())(x)
    theirs = smoothed(nn.Sequential(Halved(), digits_model), "log_probability")(x)
    assert torch.equal(ours, theirs)


def test_prediction_with_abstention_is_exported_and_loaded_again(digits: Digits, digits_model, tmp_path: Path) -> None:
    network = SmoothedPrediction(smoothed(digits_model, draws_at_once=30), alpha=0.01).eval()
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(network, (digits[0][:4],), dynamic_shapes={"x": {0: batch}})
    torch.export.save(program, tmp_path / "smoothed.pt2")
    loaded = torch.export.load(tmp_path / "smoothed.pt2").module()
    x = digits[0][10:40]
    assert torch.equal(loaded(x), network(x))
    assert (network(x) == ABSTAIN).any() and (network(x) != ABSTAIN).any()


def test_votes_of_another_output_are_refused(digits_model) -> None:
    with pytest.raises(UserError, match="output must be one of 'votes'"):
        SmoothedPrediction(smoothed(digits_model, "log_probability"))
    with pytest.raises(UserError, match="output must be one of"):
        smoothed(digits_model, "vote")


def test_given_noise_refuses_a_batch_that_was_taken_apart(digits: Digits, digits_model) -> None:
    under = UnderNoise(digits_model, torch.zeros(2, 5, 1, 8, 8))
    with pytest.raises(UserError, match="keep=last"):
        PGD(threat=ThreatModel("l2", 3), steps=3, keep="worst")(under, digits[0][:5], digits[1][:5])


# Attribution of the smoothed classifier.


def test_the_smoothed_gradient_of_a_gaussian_blurred_half_space_is_known() -> None:
    """softmax of (−s·t, s·t) at large t is a step, whose blurred probability Φ(s/σ) has the gradient φ(s/σ)/σ."""

    class Steep(HalfSpace):
        def forward(self, x: Tensor) -> Tensor:
            return 20 * super().forward(x)

    x = half_space_images(1).double()
    x[0, 0, 0, 0] = 0.7
    method = SmoothedGradient(sigma=0.5, samples=20_000, batch_size=4000)
    found = method(Steep(), x, torch.tensor([1]))
    z = 0.2 / 0.5
    assert found[0, 0, 0, 0].item() == pytest.approx(norm.pdf(z) / 0.5 / norm.cdf(z), rel=0.05)
    assert (found.flatten()[1:] == 0).all()


def test_it_is_the_gradient_of_the_smoothed_classifier(digits: Digits, digits_model) -> None:
    model, x, y = digits_model.double(), digits[0][:4].double(), digits[1][:4]
    draws = 0.5 * torch.stack([normal_like(x, streams) for streams in [SampleStreams(0, range(4))] for _ in range(6)])
    for target in (y, margin(y), log_probability(y)):
        found = SmoothedGradient(sigma=0.5, samples=6, batch_size=5)(model, x, target)
        x_in = x.clone().requires_grad_()
        outputs = UnderNoise(model, draws)(x_in)
        score = target(outputs) if callable(target) else outputs.gather(1, target[:, None])[:, 0]
        (expected,) = torch.autograd.grad(score.sum(), x_in)
        torch.testing.assert_close(found, expected)


def test_known_radii_need_no_floor() -> None:
    """With every vote for a class, the radius is σ Φ⁻¹(α^(1/n)): 1.90 for n 10⁵, α 10⁻³, σ 1/2 (Cohen et al. 2019)."""

    class Sure(HalfSpace):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([0.0, 1.0]).expand(len(x), 2)

    found = Certify(noise=NOISE, n0=10, n=10_000)(Sure(), half_space_images(1))
    assert found.radius.item() == pytest.approx(0.5 * norm.ppf(math.exp(math.log(0.001) / 10_000)), rel=1e-7)
    assert np.isclose(found.probability.item(), 0.001 ** (1 / 10_000))


@pytest.mark.parametrize("ask", [CERTIFY, partial(predict, noise=NOISE)])
def test_a_network_that_normalises_by_the_batch_is_refused(ask) -> None:
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4, track_running_stats=False))
    with pytest.raises(UserError, match="1 normalises by the batch"):
        ask(model.eval(), torch.rand(2, 1, 2, 2))


def test_votes_are_counted_exactly_in_half_precision() -> None:
    """5,137 of 10,000 votes are 5,152 in bfloat16; 5,166 are needed."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    smoothed = SmoothedClassifier(model, NOISE, (1, 1, 1), samples=10_000, output="votes").to(torch.bfloat16)
    x = torch.zeros(1, 1, 1, 1, dtype=torch.bfloat16)
    votes = smoothed(x)
    assert votes.dtype == torch.float32 and votes.sum() == 10_000
    assert SmoothedPrediction(smoothed)(x) in (ABSTAIN, votes.argmax())
