"""GloRo and EMMA: their losses in float64 from their definitions, gradients through the norms, schedules, state."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from xrobust.certification import Lipschitz, PowerIteration, slopes
from xrobust.defenses import EMMA, GloRo, GloRoTRADES, LipschitzTraining
from xrobust.defenses.gloro import with_bottom
from xrobust.errors import UserError
from xrobust.models import SmallCNN
from xrobust.schedules import Constant
from xrobust.threat import ThreatModel

THREAT = ThreatModel("l2", "0.5")
KINDS = [GloRo, GloRoTRADES, EMMA]


def small(activation: str = "min_max") -> nn.Module:
    return SmallCNN(num_classes=5, in_channels=1, image_size=8, width=4, hidden=12, activation=activation)


def made(kind: type[LipschitzTraining], model: nn.Module | None = None, **options: Any) -> LipschitzTraining:
    def optimizer(parameters):
        return torch.optim.SGD(parameters, lr=0.1)

    arguments: dict[str, Any] = {"model": model or small(), "optimizer": optimizer, "schedule": Constant(), **options}
    return kind(**{"threat": THREAT, **arguments})


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    return torch.rand(9, 1, 8, 8), torch.arange(9) % 5


def expected_loss(kind: type, logits: Tensor, k: Tensor, y: Tensor, eps: float) -> float:
    """The definitions, number by number, in float64."""
    total = 0.0
    for z, label in zip(logits.tolist(), y.tolist(), strict=True):
        classes = range(len(z))
        if kind is EMMA:
            moved = list(z)
            for i in classes:
                if i != label:
                    share = (z[label] - z[i]) / (eps * float(k[label, i]))
                    moved[i] += min(max(share, 0.01), 1.0) * eps * float(k[label, i])
            total += math.log(sum(math.exp(each) for each in moved)) - moved[label]
            continue
        j = max(classes, key=z.__getitem__)
        bottom = max(z[i] + eps * float(k[j, i]) for i in classes if i != j)
        whole = sum(math.exp(each) for each in (*z, bottom))
        if kind is GloRo:
            total += math.log(whole) - z[label]
        else:
            plain = sum(math.exp(each) for each in z)
            p, q = ([math.exp(each) / of for each in z] for of in (plain, whole))
            total += math.log(plain) - z[label] + 2.0 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return total / len(y)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("eps", ["0.05", "0.5", "3"])
def test_losses_are_those_of_their_definitions(kind: type, eps: str, batch: tuple[Tensor, Tensor]) -> None:
    x, y = batch
    defense = made(kind, threat=THREAT.with_eps(eps))
    with torch.no_grad():
        for parameter in defense.model.parameters():
            parameter.mul_(1.7)  # so that margins of some classes exceed what the ball can move
    logits = copy.deepcopy(defense.model).double()(x.double()).detach()
    true = expected_loss(kind, logits, slopes(defense.model, x[0]), y, float(eps))
    assert defense.training_loss(x, y).value.item() == pytest.approx(true, rel=1e-3)


@pytest.mark.parametrize("kind", [GloRo, GloRoTRADES])
def test_gradients_go_through_the_norms(kind: type, batch: tuple[Tensor, Tensor]) -> None:
    x, y = batch[0].double(), batch[1]
    defense = made(kind, small("tanh").double())
    defense.norms = PowerIteration(start=2000)
    defense.training_loss(x, y).value.backward()
    for name, parameter in defense.model.named_parameters():
        assert parameter.grad is not None
        direction, step, ends = torch.randn_like(parameter), 1e-5, []
        for sign in (1, -1):
            with torch.no_grad():
                moved = copy.deepcopy(defense.model)
                moved.get_parameter(name).add_(sign * step * direction)
                ends.append(defense.loss_on(moved(x), slopes(moved, x[0]), y).value.item())
        found = (parameter.grad * direction).sum().item()
        assert found == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-3, abs=1e-6), name


def test_emma_s_shares_are_constants_in_the_derivative() -> None:
    defense = made(EMMA, threat=THREAT.with_eps(1))
    logits, k, y = torch.tensor([[2.0, 1.5, 0.0]]).requires_grad_(), torch.ones(3, 3) - torch.eye(3), torch.tensor([0])
    defense.loss_on(logits, k, y).value.backward()
    # Class 1 is moved to a tie, class 2 by all of ε: CE([2, 2, 1], 0).
    expected = torch.tensor([2.0, 2.0, 1.0]).softmax(0) - torch.tensor([1.0, 0.0, 0.0])
    torch.testing.assert_close(logits.grad[0], expected)


def test_the_bottom_class_wins_exactly_where_nothing_is_certified(batch: tuple[Tensor, Tensor]) -> None:
    model, (x, _) = small(), batch
    with torch.no_grad():
        logits = model.double()(x.double())
        k = slopes(model, x[0])
        for eps in (0.001, 0.01, 0.05, 0.2):
            bottom, moved = with_bottom(logits, k, eps)
            assert bottom.shape == (9, 6) and torch.equal(bottom[:, :5], logits)
            predicted = logits.argmax(1)
            certified = Lipschitz(threat=ThreatModel("l2", eps)).certify(model, x.double(), predicted).certified
            assert torch.equal(bottom.argmax(1) == predicted, certified)
            assert torch.equal(moved.argmax(1) == predicted, certified)


def test_without_a_radius_emma_is_cross_entropy_and_bottom_is_the_second_class(batch: tuple[Tensor, Tensor]) -> None:
    (x, y), model = batch, small()
    natural = nn.functional.cross_entropy(model(x), y)
    still = THREAT.with_eps(0)
    assert made(EMMA, model, threat=still).training_loss(x, y).value.item() == pytest.approx(natural.item(), rel=1e-6)
    second = model(x).topk(2, dim=1).values[:, 1:]
    with_second = nn.functional.cross_entropy(torch.cat([model(x), second], 1), y)
    assert made(GloRo, model, threat=still).training_loss(x, y).value.item() == pytest.approx(with_second.item())


def test_the_weight_of_the_divergence_follows_its_schedule(batch: tuple[Tensor, Tensor], monkeypatch) -> None:
    x, y = batch
    defense = made(GloRoTRADES, beta=4.0, beta_schedule=lambda t: t)
    terms = []
    for progress in (0.0, 0.5, 1.0):
        monkeypatch.setattr(GloRoTRADES, "progress", progress)
        loss = defense.training_loss(x, y)
        assert loss.value.item() == pytest.approx(
            (loss.terms["cross_entropy"] + 4 * progress * loss.terms["kl"]).item()
        )
        terms.append(loss.value.item())
    assert terms == sorted(terms)


def test_training_radius_and_the_callback_s_schedule_move_the_loss(batch: tuple[Tensor, Tensor]) -> None:
    defense = made(GloRo, train_eps="3/2")
    assert defense.eps == 1.5
    far = defense.training_loss(*batch).value.item()
    defense.attack = defense.attack.with_eps("0.1")
    assert defense.training_loss(*batch).value.item() < far


def test_class_probabilities_are_taken_by_gloro_and_refused_by_emma(batch: tuple[Tensor, Tensor]) -> None:
    x, y = batch
    soft = nn.functional.one_hot(y, 5).float()
    for kind in (GloRo, GloRoTRADES):
        defense = made(kind)
        hard = defense.training_loss(x, y).value.item()
        assert defense.training_loss(x, soft).value.item() == pytest.approx(hard, rel=1e-5)
    with pytest.raises(ValueError, match="one label"):
        made(EMMA).training_loss(x, soft)


def test_norms_stay_in_float32_under_autocast(batch: tuple[Tensor, Tensor]) -> None:
    model, (x, y) = small(), batch
    exact = slopes(model, x[0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = made(GloRo, model).training_loss(x, y)
    assert loss.value.dtype == torch.float32
    assert loss.terms["largest_slope"].item() == pytest.approx(float(exact.max()), rel=1e-3)
    loss.value.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_batch_norm_counts_as_it_normalised_the_batch(batch: tuple[Tensor, Tensor]) -> None:
    x, y = batch
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 5))
    largest = made(GloRo, model).training_loss(x, y).terms["largest_slope"].item()
    with torch.no_grad():
        variance = model[1](x.flatten(1)).var(0, correction=0)
        scale = float((model[2].weight / (variance + model[2].eps).sqrt()).abs().max())
        rows = model[4].weight
        expected = float(torch.linalg.matrix_norm(model[1].weight, 2)) * scale * float(torch.cdist(rows, rows).max())
    assert largest == pytest.approx(expected, rel=1e-3)


def test_the_vectors_travel_in_the_checkpoint(batch: tuple[Tensor, Tensor]) -> None:
    defense = made(GloRo)
    defense.training_loss(*batch)
    checkpoint: dict[str, Any] = {}
    defense.on_save_checkpoint(checkpoint)
    other = made(GloRo, defense.model)
    other.on_load_checkpoint(checkpoint)
    assert checkpoint["power_iteration"].keys() == other.norms.vectors.keys() and other.norms.vectors
    again, anew = (each.training_loss(*batch).value.item() for each in (defense, other))
    assert again == anew


def test_a_copy_of_the_method_trains_its_own_model(batch: tuple[Tensor, Tensor]) -> None:
    defense = made(GloRo)
    defense.training_loss(*batch)
    other = copy.deepcopy(defense)
    with torch.no_grad():
        for parameter in other.model.parameters():
            parameter.mul_(2)
    first, second = (each.training_loss(*batch).terms["largest_slope"] for each in (defense, other))
    assert second.item() == pytest.approx(16 * first.item(), rel=1e-2)


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        (GloRo, {"threat": ThreatModel("linf", 0.1)}, "threat.norm must be one of 'l2'"),
        (GloRo, {"iterations": 0}, "iterations"),
        (GloRoTRADES, {"beta": -1.0}, "beta"),
        (EMMA, {"least": 1.5}, "least"),
    ],
)
def test_bad_values_are_refused(kind: type, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        made(kind, **options)
