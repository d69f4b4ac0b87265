"""Training for smoothing: each loss against its formula, draw by draw in float64."""

from __future__ import annotations

from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from scipy.special import ndtri
from torch import Tensor, nn

from xrobust.attacks import PGD
from xrobust.data import Digits as DigitsData
from xrobust.defenses import MACER, Consistency, GaussianSmoothing, SmoothAdv, SmoothMix
from xrobust.defenses.macer import radius_hinge
from xrobust.errors import UserError
from xrobust.randomness import SampleStreams, normal_like, uniform_like
from xrobust.schedules import Constant
from xrobust.smoothing import UnderNoise
from xrobust.threat import ThreatModel

SIGMA = 0.3
L2 = ThreatModel("l2", "1")
ATTACK = PGD(threat=L2, steps=3, random_start=False)
Digits = tuple[Tensor, Tensor]


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.Softplus(), nn.Linear(12, 10))
    model[-1].weight.data.mul_(4)
    return model.double()


def defense(kind: type, **arguments: Any) -> Any:
    return kind(model=network(), optimizer=torch.optim.SGD, schedule=Constant(), sigma=SIGMA, **arguments).train()


def batch(digits: Digits, count: int = 12) -> Digits:
    """Some labels are what the network says, so that both kinds of samples occur."""
    x = digits[0][:count].double()
    y = digits[1][:count].clone()
    with torch.no_grad():
        y[::2] = network()(x[::2]).argmax(1)
    return x, y


def drawn(x: Tensor, copies: int) -> tuple[Tensor, torch.Generator]:
    generator = torch.Generator().manual_seed(7)
    return SIGMA * normal_like(x.new_empty(copies, *x.shape), generator).double(), generator


def probabilities(model: nn.Module, x: Tensor, noise: Tensor, scale: float = 1.0) -> Tensor:
    """(m, N, K), one draw and one image at a time."""
    rows = [[(scale * model((a + d)[None])[0]).softmax(0) for a, d in zip(x, draw, strict=True)] for draw in noise]
    return torch.stack([torch.stack(row) for row in rows])


def natural(p: Tensor, y: Tensor) -> Tensor:
    return -torch.stack([draw[n, c].log() for draw in p for n, c in enumerate(y)]).mean()


def check_equals(method: Any, x: Tensor, y: Tensor, expected: Tensor) -> None:
    method.generator.manual_seed(7)
    value = method.training_loss(x, y).value
    parameters = list(method.model.parameters())
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=0)
    ours = torch.autograd.grad(value, parameters)
    theirs = torch.autograd.grad(expected, parameters)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-12)


def test_gaussian(digits: Digits) -> None:
    x, y = batch(digits)
    method = defense(GaussianSmoothing, copies=3)
    check_equals(method, x, y, natural(probabilities(method.model, x, drawn(x, 3)[0]), y))


def test_consistency(digits: Digits) -> None:
    x, y = batch(digits)
    method = defense(Consistency, copies=3, consistency=7.0, entropy=0.4)
    p = probabilities(method.model, x, drawn(x, 3)[0])
    mean = sum(p) / 3
    divergence = sum((mean * (mean / q).log()).sum(1) for q in p) / 3
    entropy = -(mean * mean.log()).sum(1)
    check_equals(method, x, y, natural(p, y) + 7 * divergence.mean() + 0.4 * entropy.mean())


def test_macer(digits: Digits) -> None:
    x, y = batch(digits)
    method = defense(MACER, copies=4, weight=3.0, margin=2.0, inverse_temperature=1.5)
    noise, _ = drawn(x, 4)
    p = sum(probabilities(method.model, x, noise)) / 4
    q = sum(probabilities(method.model, x, noise, 1.5)) / 4
    normal = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 1)
    hinges, right = [], 0
    for row, label in zip(q, y, strict=True):
        ranked = row.argsort(descending=True)
        gap = normal.icdf(row[ranked[0]]) - normal.icdf(row[ranked[1]])
        counts = ranked[0] == label and gap < 2.0
        right += bool(counts)
        hinges.append((2.0 - gap) * SIGMA / 2 if counts else torch.zeros(()))
    assert 0 < right < len(x)
    expected = -p.gather(1, y[:, None]).log().mean() + 3 * torch.stack([h.double() for h in hinges]).mean()
    check_equals(method, x, y, expected)


def test_the_hinge_of_certain_outputs_is_0_and_so_is_its_gradient() -> None:
    logits = torch.tensor([[400.0, 0, 0], [0, 0.5, 0], [3, 1, 0], [0, 0, 400]], requires_grad=True)
    hinge = radius_hinge(logits.log_softmax(1), torch.tensor([0, 0, 0, 1]), 8.0)
    (gradient,) = torch.autograd.grad(hinge.sum(), logits)
    p = logits.detach().double().softmax(1)[2].numpy()
    assert hinge[2].item() == pytest.approx(8 - float(ndtri(p[0]) - ndtri(p[1])), rel=1e-6)
    assert hinge[[0, 1, 3]].tolist() == [0, 0, 0] and gradient.isfinite().all() and gradient[2].any()
    assert not gradient[[0, 1, 3]].any()


def test_smooth_adv_attacks_the_mean_under_the_noise_that_it_trains_on(digits: Digits) -> None:
    x, y = batch(digits)
    method = defense(SmoothAdv, copies=3, attack=ATTACK)
    noise, _ = drawn(x, 3)
    x_adv = x
    for _ in range(3):  # PGD by hand
        x_in = x_adv.detach().requires_grad_()
        mean = sum(probabilities(method.model, x_in, noise)) / 3
        (g,) = torch.autograd.grad(-mean.gather(1, y[:, None]).log().sum(), x_in)
        x_adv = L2.project(x_in + ATTACK.alpha * g / g.flatten(1).norm(dim=1).view(-1, 1, 1, 1), x).detach()
    check_equals(method, x, y, natural(probabilities(method.model, x_adv, noise), y))
    method.generator.manual_seed(7)
    loss = method.training_loss(x, y)
    assert loss.x_adv is not None and (L2.distance(loss.x_adv, x) > 0.5).all()


def test_smooth_mix(digits: Digits) -> None:
    x, y = batch(digits)
    method = defense(SmoothMix, copies=3, steps=2, step_size=0.7, weight=5.0)
    noise, generator = drawn(x, 3)
    confident = x
    for _ in range(2):
        x_in = confident.detach().requires_grad_()
        mean = sum(probabilities(method.model, x_in, noise)) / 3
        (g,) = torch.autograd.grad(-mean.gather(1, y[:, None]).log().sum(), x_in)
        confident = (x_in + 0.7 * g / g.flatten(1).norm(dim=1).view(-1, 1, 1, 1)).clamp(0, 1).detach()
    share = 0.5 * uniform_like(x.flatten(1)[:, 0], generator).double()
    p = probabilities(method.model, x, noise)
    mean = sum(p) / 3
    x_mix = torch.stack([(1 - s) * a + s * b for s, a, b in zip(share, x, confident, strict=True)])
    y_mix = torch.stack([(1 - s) * q + s / 10 for s, q in zip(share, mean, strict=True)])
    mixed = sum((y_mix * (y_mix / q).log()).sum(1) for q in probabilities(method.model, x_mix, noise)) / 3
    right = mean.argmax(1) == y
    assert right.any() and not right.all()
    check_equals(method, x, y, natural(p, y) + 5 * (mixed * right).mean())


LIMITS = {
    "consistency": (Consistency, {"copies": 2, "consistency": 0.0, "entropy": 0.0}),
    "macer": (MACER, {"copies": 1, "weight": 0.0}),
    "smooth_adv": (SmoothAdv, {"copies": 2, "attack": ATTACK.with_eps(0)}),
    "smooth_mix": (SmoothMix, {"copies": 2, "weight": 0.0}),
}


@pytest.mark.parametrize("name", LIMITS)
def test_without_its_extra_term_each_method_is_gaussian_training(name: str, digits: Digits) -> None:
    kind, arguments = LIMITS[name]
    x, y = batch(digits)
    method = defense(kind, **arguments)
    check_equals(method, x, y, natural(probabilities(method.model, x, drawn(x, arguments["copies"])[0]), y))


@pytest.mark.parametrize(
    ("kind", "name", "arguments", "expected"),
    [
        (SmoothMix, "mixed", {"warmup": 0.4, "weight": 5.0, "steps": 1}, {0.1: 1.25, 0.4: 5.0, 0.9: 5.0}),
        (MACER, "radius_hinge", {"deferred": 0.4, "weight": 5.0, "copies": 2}, {0.1: 0.0, 0.4: 5.0, 0.9: 5.0}),
    ],
)
def test_the_extra_term_comes_in_over_the_run(
    kind: type, name: str, arguments: dict, expected: dict, digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = batch(digits)
    method = defense(kind, **arguments)
    for progress, weight in expected.items():
        monkeypatch.setattr(kind, "progress", progress)
        loss = method.training_loss(x, y)
        assert loss.terms[name] > 0
        torch.testing.assert_close(loss.value, loss.terms["cross_entropy"] + weight * loss.terms[name])


@pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated", "ignore:.*does not have many workers")
@pytest.mark.parametrize("size", [50, 180])
def test_the_noise_of_validation_images_depends_on_the_image_alone(size: int) -> None:
    data = DigitsData(num_classes=10, channels=1, image_size=8, eval_batch_size=size)
    method = defense(GaussianSmoothing)
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    (logged,) = trainer.validate(method.float(), datamodule=data, verbose=False)
    loader = data.val_dataloader()
    x, y = loader.images.float() / 255, loader.labels
    noisy = x + SIGMA * normal_like(x, SampleStreams(0, range(len(x))))
    expected = (method.model(noisy).argmax(1) == y).float().mean().item()
    assert logged["val/noisy_accuracy"] == pytest.approx(expected)


def test_class_probabilities_as_labels_give_the_loss_of_the_labels(digits: Digits) -> None:
    x, y = batch(digits)
    one_hot = nn.functional.one_hot(y, 10).double()
    for kind, more in (LIMITS["consistency"], (MACER, {"copies": 2}), LIMITS["smooth_adv"], (SmoothMix, {})):
        method = defense(kind, **more)
        values = []
        for labels in (y, one_hot):
            method.generator.manual_seed(7)
            values.append(method.training_loss(x, labels).value)
        torch.testing.assert_close(*values)


@pytest.mark.parametrize(
    ("kind", "arguments", "words"),
    [
        (GaussianSmoothing, {"copies": 0}, "defense.copies"),
        (Consistency, {"copies": 1}, "defense.copies must be an integer of at least 2"),
        (MACER, {"deferred": 2.0}, "defense.deferred"),
        (SmoothMix, {"step_size": 0}, "defense.step_size must be above 0"),
        (SmoothMix, {"steps": 0}, "defense.steps"),
    ],
)
def test_mistakes_are_one_sentence(kind: type, arguments: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        defense(kind, **arguments)


def test_a_standard_deviation_of_0_is_refused() -> None:
    with pytest.raises(UserError, match=r"defense\.sigma must be above 0"):
        GaussianSmoothing(model=network(), optimizer=torch.optim.SGD, schedule=Constant(), sigma=0)


def test_given_noise_is_part_of_no_state(digits: Digits) -> None:
    """What is attacked is the network itself: its weights are those that train, and the noise is not kept."""
    model = network()
    assert {f"model.{name}" for name in model.state_dict()} == set(UnderNoise(model, torch.zeros(1)).state_dict())
