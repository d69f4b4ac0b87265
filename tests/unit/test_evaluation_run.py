"""Evaluation sample by sample: what counts as broken, what may never happen, and going on after a kill."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from xrobust.attacks import APGD, EOT, FGSM, PGD, Attack, Square, Transfer, UniformNoise, WorstOf
from xrobust.errors import UserError
from xrobust.evaluation import Evaluation, Ladder, Turn, accuracies, curve, evaluate, turn_by_turn
from xrobust.evaluation.fingerprint import differences, fingerprint
from xrobust.evaluation.fixed import fixed_conditions
from xrobust.evaluation.outcome import MISCLASSIFIED, STANDING
from xrobust.models import SmallCNN
from xrobust.threat import ThreatModel

LINF, L2 = ThreatModel("linf", "0.1"), ThreatModel("l2", "0.6")
Set = tuple[Tensor, Tensor]


def composed(threat: ThreatModel) -> WorstOf:
    attacks = {
        "noise": UniformNoise(threat=threat, draws=3),
        "pgd": PGD(threat=threat, steps=5, keep="worst"),
        "apgd": APGD(threat=threat, steps=10, loss="margin"),
        "square": Square(threat=threat, queries=20),
    }
    return WorstOf(threat=threat, attacks=attacks)


@pytest.fixture
def images(digits: Set) -> Set:
    return digits[0][-120:], digits[1][-120:]


@pytest.fixture
def both(digits_model: nn.Module, images: Set) -> Evaluation:
    ladders = [Ladder(composed(LINF), eps=("0.02", "0.2", 0)), Ladder(composed(L2))]
    return evaluate(digits_model, *images, ladders)


def same(a: Evaluation, b: Evaluation) -> bool:
    """Equal fates and predictions; distances up to rounding."""
    left, right = a.outcomes.arrays(), b.outcomes.arrays()
    exact = ("index", "label", "clean_prediction", "broken_by", "prediction")
    return all(np.array_equal(left[name], right[name]) for name in exact) and np.allclose(
        left["distance"], right["distance"], atol=1e-3
    )


def test_no_sample_that_is_wrong_without_an_attack_is_robust(both: Evaluation) -> None:
    assert 0 < both.clean.sum() < len(both.clean), "some must be right and some wrong"
    for i in range(2):
        assert 0 < both.standing(i).sum() < both.clean.sum()
        assert (both.standing(i) <= both.clean).all()
    wrong = both.outcomes.broken_by[~both.clean]
    assert (wrong == MISCLASSIFIED).all()


def test_the_union_is_no_more_robust_than_each_threat_model(both: Evaluation) -> None:
    assert (both.union == (both.standing(0) & both.standing(1))).all()
    assert 0 < both.union.sum() <= min(both.standing(0).sum(), both.standing(1).sum())


def test_a_security_curve_never_rises_and_begins_at_clean_accuracy(both: Evaluation) -> None:
    points = curve(both, 0)
    assert [point["eps_exact"] for point in points] == ["0", "1/50", "1/10", "1/5"]
    assert points[0]["correct"] == both.clean.sum()
    counts = [point["correct"] for point in points]
    assert counts == sorted(counts, reverse=True) and counts[0] > counts[-1]
    for small, large in ((0, 1), (1, 2), (2, 3)):
        assert (both.standing(0, large) <= both.standing(0, small)).all()


@dataclass(frozen=True, kw_only=True)
class OnlyAtSmallRadii(Attack):
    """An attack that fails where it has most room, as gradient masking makes them."""

    def run(self, model: nn.Module, x: Tensor, y: Tensor, generator) -> Tensor:
        inner = PGD(threat=self.threat, steps=10, keep="worst")
        return inner(model, x, y, generator=generator) if self.threat.radius < 0.15 else x


def test_a_curve_carries_broken_samples_on_to_larger_radii(digits_model: nn.Module, images: Set) -> None:
    evaluation = evaluate(digits_model, *images, [Ladder(OnlyAtSmallRadii(threat=ThreatModel("linf", "0.2")), ["0.1"])])
    counts = [point["correct"] for point in curve(evaluation, 0)]
    assert counts[0] == counts[1] < evaluation.clean.sum()
    alone = evaluate(digits_model, *images, [Ladder(OnlyAtSmallRadii(threat=ThreatModel("linf", "0.2")))])
    assert alone.standing(0).sum() == alone.clean.sum(), "the planted attack fails at its own radius"


def test_broken_samples_are_within_the_threat_model_and_wrong_when_asked_again(
    both: Evaluation, digits_model: nn.Module
) -> None:
    outcomes = both.outcomes
    for place, ladder in ((both.first_rung(0) + both.ladders[0].own, 0), (both.first_rung(1), 1)):
        broken = outcomes.broken_by[:, place] > 0
        assert (outcomes.prediction[broken, place] != outcomes.label[broken]).all()
        standing = outcomes.broken_by[:, place] == STANDING
        assert (outcomes.prediction[standing, place] == outcomes.label[standing]).all()
        radius = both.ladders[ladder].threat.radius
        assert (outcomes.distance[broken, place] <= radius * (1 + 1e-5)).all()
        assert (outcomes.distance[broken, place] > 0).all()
        shown = torch.from_numpy(outcomes.adversarial_images[:, ladder])
        labels = outcomes.label[np.isin(outcomes.index, outcomes.shown)]
        with torch.no_grad():
            wrong = digits_model(shown).argmax(1).numpy() != labels
        assert wrong.any() and (wrong == broken[np.isin(outcomes.index, outcomes.shown)]).all()


def test_each_broken_sample_is_credited_to_the_first_member_that_broke_it(
    both: Evaluation, digits_model: nn.Module, images: Set
) -> None:
    alone = evaluate(digits_model, *images, [Ladder(composed(L2).attacks["noise"])])
    by_noise = both.outcomes.broken_by[:, both.first_rung(1)] == 1
    assert (by_noise == (alone.clean & ~alone.standing(0))).all() and by_noise.any()
    standing = [row["standing"] for row in turn_by_turn(both) if row["threat"] == str(L2)]
    assert standing == sorted(standing, reverse=True)
    assert standing[0] == alone.standing(0).sum() and standing[-1] == both.standing(1).sum()


@pytest.mark.parametrize("batch_size", [1, 7, 120])
def test_outcomes_do_not_depend_on_the_batch_size(
    batch_size: int, both: Evaluation, digits_model: nn.Module, images: Set
) -> None:
    x, y = images[0][:40], images[1][:40]
    ladders = [Ladder(composed(LINF))]
    whole = evaluate(digits_model, x, y, ladders, batch_size=40)
    assert same(whole, evaluate(digits_model, x, y, ladders, batch_size=batch_size))
    assert 0 < whole.standing(0).sum() < 40


def test_a_sample_fares_alike_in_any_subset_but_not_with_another_seed(digits_model: nn.Module, images: Set) -> None:
    ladders = [Ladder(UniformNoise(threat=ThreatModel("linf", "0.4"), draws=2))]
    whole = evaluate(digits_model, *images, ladders)
    odd = torch.arange(1, 120, 2)
    part = evaluate(digits_model, images[0][odd], images[1][odd], ladders, index=odd)
    assert (part.standing(0) == whole.standing(0)[odd]).all()
    other = evaluate(digits_model, *images, ladders, seed=1)
    assert not np.array_equal(other.outcomes.distance, whole.outcomes.distance)


def test_bytes_are_images_too(digits_model: nn.Module, images: Set) -> None:
    stored = (images[0] * 255).round().to(torch.uint8)
    ladders = [Ladder(FGSM(threat=LINF))]
    assert same(
        evaluate(digits_model, stored, images[1], ladders), evaluate(digits_model, stored / 255, images[1], ladders)
    )


@dataclass(frozen=True, kw_only=True)
class Escapes(Attack):
    """Leaves the ball."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator=None) -> Tensor:
        return (x + 3 * self.threat.radius).clamp(0, 1)

    run = __call__


def test_an_attack_that_leaves_its_threat_model_is_refused(digits_model: nn.Module, images: Set) -> None:
    with pytest.raises(RuntimeError, match=r"Escapes .* outside of its threat model"):
        evaluate(digits_model, *images, [Ladder(Escapes(threat=LINF))])


def test_the_model_is_judged_in_evaluation_mode_and_left_as_it_was(digits_model: nn.Module, images: Set) -> None:
    ladders = [Ladder(PGD(threat=LINF, steps=3))]
    dropping = nn.Sequential(nn.Dropout(0.9), digits_model).train()
    state = torch.get_rng_state()
    evaluation = evaluate(dropping, *images, ladders)
    assert torch.equal(torch.get_rng_state(), state) and all(module.training for module in dropping.modules())
    assert (evaluation.standing(0) == evaluate(digits_model.eval(), *images, ladders).standing(0)).all()


def test_accuracies_come_with_interval_and_protocol(both: Evaluation) -> None:
    clean, linf, l2, union = accuracies(both, "test")
    assert clean.quantity == "test/clean_accuracy" and clean.protocol == {"split": "test"}
    assert linf.protocol["attack"]["threat"]["eps"] == "1/10" and linf.protocol["seed"] == 0
    assert linf.protocol["attack"]["attacks"]["pgd"]["steps"] == 5
    assert union.quantity == "test/union_robust_accuracy" and union.correct == both.union.sum()
    for result in (clean, linf, l2, union):
        assert result.interval[0] < result.value < result.interval[1] and result.total == 120
    assert union.value <= min(linf.value, l2.value) <= clean.value


class Killed(Exception):
    """Stands for the end of the process."""


def test_a_killed_evaluation_goes_on_to_the_same_outcomes(
    digits_model: nn.Module, images: Set, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ladders = [Ladder(composed(LINF), eps=("0.05",))]
    whole = evaluate(digits_model, *images, ladders, batch_size=30)
    seen: list[Turn] = []

    def kill(turn: Turn) -> None:
        seen.append(turn)
        if len(seen) == 21:  # two batches of eight turns are done
            raise Killed

    with pytest.raises(Killed):
        evaluate(digits_model, *images, ladders, batch_size=30, folder=tmp_path, watch=kill)
    assert len(list((tmp_path / "batches").iterdir())) == 2
    (tmp_path / "batches" / ".00000060.npz.1.partial").write_bytes(b"half")
    kept = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "batches").glob("0*.npz")}

    seen.clear()
    resumed = evaluate(digits_model, *images, ladders, batch_size=17, folder=tmp_path, watch=seen.append)
    assert same(whole, resumed)
    assert not list(tmp_path.rglob("*.partial"))
    assert all((tmp_path / "batches" / name).stat().st_mtime_ns == time for name, time in kept.items())
    assert sum(turn.samples for turn in seen) == 120 * 8, "finished batches count in the progress"
    own = [turn for turn in seen if turn.threat == str(LINF) and turn.member == "square"]
    assert sum(turn.standing for turn in own) == whole.standing(0).sum()

    monkeypatch.setattr("xrobust.evaluation.run.attack_batch", None)  # a finished evaluation attacks nothing
    again = evaluate(digits_model, *images, ladders, folder=tmp_path)
    assert same(whole, again) and np.array_equal(again.outcomes.seconds, resumed.outcomes.seconds)


def test_the_turns_of_a_finished_evaluation_are_those_that_were_watched(
    digits_model: nn.Module, images: Set, tmp_path: Path
) -> None:
    watched: list[Turn] = []
    weak = UniformNoise(threat=LINF)
    attack = WorstOf(threat=LINF, attacks={"weak": weak, "pgd": PGD(threat=LINF, steps=10, keep="worst")})
    ladders = [Ladder(attack, eps=("0.05", "0.2"))]
    evaluate(digits_model, *images, ladders, folder=tmp_path, watch=watched.append)
    replayed: list[Turn] = []
    evaluate(digits_model, *images, ladders, folder=tmp_path, watch=replayed.append)
    assert replayed == watched
    left = [turn.standing for turn in replayed]
    assert left == sorted(left, reverse=True) and left[0] > left[-1], "what one radius broke stays broken at the next"


def test_another_surrogate_is_another_evaluation(digits_model: nn.Module, images: Set, tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        useless = SmallCNN(num_classes=10, in_channels=1, image_size=8)
    transfer = Transfer(threat=LINF, attack=PGD(threat=LINF, steps=3), surrogate=useless)
    assert transfer.describe()["surrogate"] == "SmallCNN" and "surrogate SmallCNN" in str(transfer)
    evaluate(digits_model, *images, [Ladder(transfer)], folder=tmp_path)
    with pytest.raises(UserError, match="surrogate_sha256"):
        evaluate(digits_model, *images, [Ladder(replace(transfer, surrogate=digits_model))], folder=tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("steps", r"attacks\[0\].steps"),
        ("eps", r"attacks"),
        ("seed", "seed"),
        ("data", "data"),
        ("labels", "data"),
        ("model", "model"),
    ],
)
def test_another_evaluation_in_the_same_folder_is_refused(
    change: str, words: str, digits_model: nn.Module, images: Set, tmp_path: Path
) -> None:
    x, y = images[0][:10], images[1][:10]
    evaluate(digits_model, x, y, [Ladder(PGD(threat=LINF, steps=2))], folder=tmp_path)
    attack = PGD(threat=LINF, steps=3 if change == "steps" else 2)
    if change == "data":
        x = x.clone()
        x[0, 0, 0, 0] = 1
    if change == "labels":
        y = y.flip(0)
    if change == "model":
        with torch.no_grad():
            digits_model.layers.linear2.bias[0] += 1e-6
    eps = ("0.2",) if change == "eps" else ()
    with pytest.raises(UserError, match=f"holds another evaluation, which differs in .*{words}") as error:
        evaluate(digits_model, x, y, [Ladder(attack, eps)], seed=int(change == "seed"), folder=tmp_path)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("name", ["fingerprint.json", "batches/00000000.npz"])
def test_a_damaged_file_is_named(name: str, digits_model: nn.Module, images: Set, tmp_path: Path) -> None:
    ladders = [Ladder(FGSM(threat=LINF))]
    evaluate(digits_model, *images, ladders, folder=tmp_path)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=f"{name} is damaged"):
        evaluate(digits_model, *images, ladders, folder=tmp_path)


def test_plain_attributes_are_part_of_the_fingerprint(images: Set) -> None:
    def at(temperature: float) -> dict:
        model = nn.Flatten()
        model.temperature = temperature
        return fingerprint(model, *images, torch.arange(len(images[0])), {})

    assert at(1.0) == at(1.0) and list(differences(at(1.0), at(2.0))) == ["model"]


def test_the_fingerprint_is_readable(digits_model: nn.Module, images: Set, tmp_path: Path) -> None:
    evaluate(digits_model, *images, [Ladder(PGD(threat=LINF, steps=2), ["0.2"])], folder=tmp_path)
    written = json.loads((tmp_path / "fingerprint.json").read_text())
    assert [attack["threat"]["eps"] for attack in written["attacks"]] == ["1/10", "1/5"]
    assert len(written["model"]) == len(written["data"]) == 64


def test_what_does_not_fit_is_refused_in_one_sentence(digits_model: nn.Module, images: Set) -> None:
    ladders = [Ladder(FGSM(threat=LINF))]
    with pytest.raises(UserError, match=r"does not accept images of shape \(1, 8, 5\)"):
        evaluate(digits_model, images[0][..., :5], images[1], ladders)
    with pytest.raises(UserError, match="labels go up to 10"):
        evaluate(digits_model, images[0], images[1] + 1, ladders)
    with pytest.raises(UserError, match="batch_size must be an integer of at least 1, got 0"):
        evaluate(digits_model, *images, ladders, batch_size=0)
    with pytest.raises(UserError, match="index must increase"):
        evaluate(digits_model, *images, ladders, index=torch.zeros(120, dtype=torch.long))
    with pytest.raises(UserError, match="eps must be at least 0, got -1"):
        evaluate(digits_model, *images, [Ladder(FGSM(threat=LINF), [-1])])
    with pytest.raises(UserError, match=r"PGD .* cannot run on this model"):
        evaluate(nn.Sequential(Detach(), digits_model), *images, [Ladder(PGD(threat=LINF))])


class Detach(nn.Module):
    """Cuts the graph."""

    def forward(self, x: Tensor) -> Tensor:
        return x.detach()


def test_the_conditions_of_an_evaluation_end_with_it() -> None:
    def state() -> list[object]:
        cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
        return [cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32, matmul.fp32_precision]

    before, drawn = state(), []
    for _ in range(2):
        with fixed_conditions(torch.device("cpu"), seed=3):
            assert state() == [True, False, True, False, "ieee"]
            drawn.append(torch.rand(3))
    assert state() == before and torch.equal(*drawn)


class Unsure(nn.Module):
    """Near ±2 its answer is wrong with probability 0.1; further away from 0 it is sure."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(16))

    def forward(self, x: Tensor) -> Tensor:
        value = (x.flatten(1) * self.weight).sum(1, keepdim=True) - 8
        flipped = torch.where(torch.rand_like(value) < 0.1, -value, value)
        value = torch.where(value.abs() < 3, flipped, value)
        return torch.cat([value, -value], 1)


def test_what_a_random_model_once_got_wrong_is_not_restored() -> None:
    """Every image has adversarial examples that always fool the model; none may stand because a draw was lucky."""
    y = torch.arange(200) % 2
    x = torch.where(y == 0, 10 / 16, 6 / 16).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)
    threat = ThreatModel("linf", "0.4")
    attack = EOT(threat=threat, attack=APGD(threat=threat, steps=20))
    evaluation = evaluate(Unsure(), x, y, [Ladder(WorstOf(threat=threat, attacks={"apgd": attack}))])
    assert 0.8 < evaluation.clean.mean() < 1 and not evaluation.standing(0).any()


class Broken(nn.Module):
    """The logit of class 1 is not a number for bright images."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        bright = x.flatten(1).mean(1) * self.weight
        return torch.stack([bright, torch.where(bright > 0.3, bright * torch.nan, bright - 10), bright - 20], 1)


@pytest.mark.parametrize("composition", [APGD, Square])
def test_a_logit_that_is_not_a_number_is_never_right(composition) -> None:
    x, y = torch.full((20, 1, 4, 4), 0.5), torch.ones(20, dtype=torch.long)
    x[0], y[0] = 0.0, 0
    evaluation = evaluate(Broken(), x, y, [Ladder(composition(threat=ThreatModel("linf", "0.1")))])
    assert evaluation.clean.tolist() == [True] + [False] * 19 and (evaluation.outcomes.clean_prediction[1:] == -1).all()
    assert not evaluation.standing(0)[1:].any()
