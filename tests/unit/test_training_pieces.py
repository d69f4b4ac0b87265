"""What composes with any training method: perturbed and averaged weights, gaps and collapses that are watched."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from conf_walk import choices, composed
from pytorch_lightning.callbacks import Checkpoint
from torch import Tensor, nn
from torch.func import functional_call

import xrobust
from callbacks import (
    AdversarialWeightPerturbation,
    BestCheckpoint,
    CatastrophicOverfitting,
    EpsilonSchedule,
    ExponentialMovingAverage,
    L1WeightPenalty,
    RobustAccuracy,
    RobustGap,
    StochasticWeightAverage,
)
from callbacks.stochastic_weight_average import Cycles
from callbacks.weight_perturbation import perturbation
from xrobust.attacks import FGSM, PGD
from xrobust.config.build import build_all
from xrobust.data import Digits
from xrobust.defenses import (
    MART,
    NFGSM,
    TRADES,
    FreeAdversarialTraining,
    GradAlign,
    MultiThreatTraining,
    PGDAdversarialTraining,
    RobustClassifier,
    StandardTraining,
)
from xrobust.errors import UserError
from xrobust.schedules import Constant, Cosine, Ramp
from xrobust.threat import ThreatModel

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated")
THREAT = ThreatModel("linf", "0.1")
STEP = FGSM(threat=THREAT)
RANDOM = PGD(threat=THREAT, steps=2)
WORST = PGD(threat=THREAT, steps=5, keep="worst")


def network(*, norm: bool = False, dropout: float = 0.0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4) if norm else nn.Identity(), nn.ReLU(), nn.Flatten()]
        return nn.Sequential(*first, nn.Dropout(dropout), nn.Linear(144, 10))


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, 3e-3)


def sgd(rate: float) -> Callable[[Any], torch.optim.Optimizer]:
    return lambda parameters: torch.optim.SGD(parameters, rate)


def defense(model: nn.Module, attack: Any = RANDOM, optimizer: Any = adam, **base: Any) -> RobustClassifier:
    return PGDAdversarialTraining(model=model, attack=attack, optimizer=optimizer, **{"schedule": Constant(), **base})


def fit(
    module: RobustClassifier, *callbacks: pl.Callback, epochs: int = 1, resume: Path | None = None, **options: Any
) -> pl.Trainer:
    trainer_options = {"limit_train_batches": 4, "limit_val_batches": 0, **options}
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        num_sanity_val_steps=0,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        **{name: value for name, value in trainer_options.items() if name != "batch_size"},
    )
    data = Digits(num_classes=10, channels=1, image_size=8, batch_size=options.get("batch_size", 50))
    trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
    return trainer


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def weights_of(module: pl.LightningModule) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.model.state_dict().items()}  # type: ignore[union-attr]


class Watch(pl.Callback):
    """Notes the weights at each occasion."""

    def __init__(self) -> None:
        self.at_backward: list[dict[str, Tensor]] = []
        self.gradients: list[dict[str, Tensor]] = []
        self.after_step: list[dict[str, Tensor]] = []
        self.in_validation: list[dict[str, Tensor]] = []
        self.at_epoch_end: list[dict[str, Tensor]] = []
        self.rates: list[float] = []

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        self.at_backward.append(weights_of(pl_module))

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: Any) -> None:
        self.gradients.append({name: p.grad.clone() for name, p in pl_module.model.named_parameters()})

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: object) -> None:  # type: ignore[override]
        self.after_step.append(weights_of(pl_module))
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.in_validation.append(weights_of(pl_module))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.at_epoch_end.append(weights_of(pl_module))


# --- the pieces on the command line ---------------------------------------------------------------------------


def test_all_pieces_that_can_go_together_are_chosen_by_name_and_keep_the_default_callbacks() -> None:
    pieces = [name for name in choices("pieces") if name != "swa"]
    config = composed(f"pieces=[{','.join(pieces)}]", "callbacks.awp.gamma=0.005")
    built = build_all(config["callbacks"], "callbacks")
    assert built.keys() >= composed()["callbacks"].keys() | {"awp", "ema", "robust_gap", "early_stopping"}
    assert built["awp"].gamma == 0.005
    assert config["data"]["mix"].keys() == {"cutmix", "mixup"}


# --- adversarial weight perturbation --------------------------------------------------------------------------


def test_a_perturbation_is_the_steepest_ascent_of_its_length() -> None:
    weight, gradient = torch.randn(3, 4), torch.randn(3, 4)
    v = perturbation(weight, gradient, 0.01)
    torch.testing.assert_close(v.norm(), 0.01 * weight.norm())
    torch.testing.assert_close(F.cosine_similarity(v.flatten(), gradient.flatten(), dim=0), torch.tensor(1.0))
    assert torch.equal(perturbation(weight, torch.zeros(3, 4), 0.01), torch.zeros(3, 4))


def test_without_a_radius_training_is_the_same_bit_for_bit() -> None:
    """Batch norm, dropout, random starts: none of them notices the further loss."""
    plain, perturbed = (defense(network(norm=True, dropout=0.3)) for _ in range(2))
    for module, callbacks in ((plain, []), (perturbed, [AdversarialWeightPerturbation(gamma=0.0)])):
        torch.manual_seed(0)
        fit(module, *callbacks, epochs=2)
    assert same(weights_of(plain), weights_of(perturbed))
    changed = defense(network(norm=True, dropout=0.3))
    torch.manual_seed(0)
    fit(changed, AdversarialWeightPerturbation(gamma=0.01), epochs=2)
    assert not same(weights_of(plain), weights_of(changed))


def test_the_weights_come_back_bit_for_bit() -> None:
    module = defense(network(), optimizer=sgd(0.0))
    before, watch = weights_of(module), Watch()
    fit(module, watch, AdversarialWeightPerturbation(gamma=0.1))
    assert same(before, weights_of(module))
    assert not same(before, watch.at_backward[0])


def test_only_weights_of_more_than_one_dimension_move_each_by_its_own_length() -> None:
    module = defense(network(norm=True), optimizer=sgd(0.0))
    before, watch = weights_of(module), Watch()
    fit(module, watch, AdversarialWeightPerturbation(gamma=0.1), limit_train_batches=1)
    for name, parameter in module.model.named_parameters():
        moved = (watch.at_backward[0][name] - before[name]).norm()
        expected = 0.1 * before[name].norm() if parameter.dim() > 1 else torch.tensor(0.0)
        torch.testing.assert_close(moved, expected)


@pytest.mark.parametrize("method", [PGDAdversarialTraining, TRADES])
def test_the_gradient_is_that_of_the_perturbed_weights_at_examples_found_before(method: Any) -> None:
    module = method(model=network(), attack=STEP, optimizer=sgd(0.1), schedule=Constant())
    model, watch = copy.deepcopy(module.model), Watch()
    fit(module, watch, AdversarialWeightPerturbation(gamma=0.05), limit_train_batches=1)
    x, y = next(iter(Digits(num_classes=10, channels=1, image_size=8, batch_size=50).train_dataloader()))
    x_adv = STEP(model, x, y)

    def loss(weights: dict[str, Tensor]) -> Tensor:
        adversarial = functional_call(model, weights, (x_adv,))
        if method is PGDAdversarialTraining:
            return F.cross_entropy(adversarial, y)
        clean = functional_call(model, weights, (x,))
        kl = F.kl_div(adversarial.log_softmax(1), clean.log_softmax(1), reduction="batchmean", log_target=True)
        return F.cross_entropy(clean, y) + 6 * kl

    w = dict(model.named_parameters())
    g = dict(zip(w, torch.autograd.grad(loss(w), list(w.values())), strict=True))
    moved = {
        name: (p + 0.05 * p.norm() * g[name] / g[name].norm() if p.dim() > 1 else p).detach().requires_grad_()
        for name, p in w.items()
    }
    expected = torch.autograd.grad(loss(moved), list(moved.values()))
    for name, gradient in zip(moved, expected, strict=True):
        torch.testing.assert_close(watch.gradients[0][name], gradient, rtol=1e-4, atol=1e-6)


def test_the_attack_runs_once_for_each_batch_and_nothing_touches_the_gradients_before_the_backward_pass() -> None:
    found: list[list[Tensor]] = []
    left: list[list[Tensor]] = []

    def gradients(model: nn.Module) -> list[Tensor]:
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    class Noting(FGSM):
        def run(self, model: nn.Module, *inputs: Any) -> Tensor:
            found.append(gradients(model))
            return super().run(model, *inputs)

    class BeforeZeroGrad(pl.Callback):
        def on_before_zero_grad(self, trainer: pl.Trainer, pl_module: Any, optimizer: Any) -> None:
            left.append(gradients(pl_module.model))

    fit(defense(network(), Noting(threat=THREAT)), AdversarialWeightPerturbation(), BeforeZeroGrad())
    assert [len(batch) for batch in found] == [0, 4, 4, 4]  # those of the batch before
    assert all(
        torch.equal(a, b) for one, other in zip(found, left, strict=True) for a, b in zip(one, other, strict=True)
    )


def test_the_first_epochs_are_spared() -> None:
    module, watch = defense(network(), optimizer=sgd(0.0)), Watch()
    before = weights_of(module)
    fit(module, watch, AdversarialWeightPerturbation(warm_up_epochs=2), epochs=3)
    assert [same(before, weights) for weights in watch.at_backward] == [True] * 8 + [False] * 4


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (StandardTraining, {}),
        (FreeAdversarialTraining, {"threat": THREAT, "replays": 2}),
        (NFGSM, {"attack": STEP}),
        (GradAlign, {"attack": STEP}),
        (MultiThreatTraining, {"attacks": {"one": STEP, "two": RANDOM}}),
        (MART, {"attack": STEP}),
    ],
)
def test_perturbation_works_with_methods_of_every_kind(method: Any, options: dict) -> None:
    module = method(model=network(), optimizer=sgd(0.0), schedule=Constant(), **options)
    before, watch = weights_of(module), Watch()
    fit(module, watch, AdversarialWeightPerturbation())
    assert not any(same(before, weights) for weights in watch.at_backward)
    assert same(before, weights_of(module))


# --- exponential moving average -------------------------------------------------------------------------------


def test_the_moving_average_is_the_weighted_mean_of_the_weights_after_each_step() -> None:
    module, watch = defense(network(norm=True)), Watch()
    fit(module, watch, ExponentialMovingAverage(decay=0.8), epochs=2)
    factors = torch.tensor([0.8 ** (8 - step) for step in range(1, 9)], dtype=torch.float64)
    for name, average in weights_of(module).items():
        steps = torch.stack([weights[name] for weights in watch.after_step])
        if not average.is_floating_point():
            assert torch.equal(average, steps[-1])
            continue
        expected = torch.tensordot(factors / factors.sum(), steps.double(), 1)
        torch.testing.assert_close(average.double(), expected, rtol=1e-5, atol=1e-7)


def test_without_decay_the_average_is_the_weights_bit_for_bit() -> None:
    module, watch = defense(network(norm=True)), Watch()
    fit(module, watch, ExponentialMovingAverage(decay=0.0), epochs=2, limit_val_batches=None)
    for average, weights in zip(watch.in_validation, watch.at_epoch_end, strict=True):
        assert same(average, weights)


def test_validation_sees_the_average_and_training_goes_on_as_without_it() -> None:
    plain, averaged = (defense(network(norm=True)) for _ in range(2))
    without, with_average = Watch(), Watch()
    fit(plain, without, epochs=2, limit_val_batches=None)
    # The watch stands on either side of the average, so that the order of callbacks does not matter.
    fit(averaged, with_average, ExponentialMovingAverage(decay=0.9), Watch(), epochs=2, limit_val_batches=None)
    for step, again in zip(without.after_step, with_average.after_step, strict=True):
        assert same(step, again)
    assert same(with_average.in_validation[-1], weights_of(averaged))  # and it stays after training
    assert not same(with_average.in_validation[-1], with_average.at_epoch_end[-1])
    assert same(with_average.at_epoch_end[-1], weights_of(plain))


def test_checkpoints_and_the_test_after_training_hold_the_average(tmp_path: Path) -> None:
    module, watch = defense(network()), Watch()
    module.config = {"model": {"_target_": "xrobust.models.SmallCNN"}}
    best = BestCheckpoint(str(tmp_path), monitor="val/clean_accuracy")
    trainer = fit(module, watch, ExponentialMovingAverage(decay=0.9), best, limit_val_batches=None)
    saved = torch.load(best.best_model_path, weights_only=True)
    state = {name.removeprefix("model."): t for name, t in saved["state_dict"].items() if name.startswith("model.")}
    assert same(state, watch.in_validation[0])
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    trainer.test(
        module, datamodule=trainer.datamodule, ckpt_path=best.best_model_path, weights_only=True, verbose=False
    )  # type: ignore[attr-defined]
    assert same(weights_of(module), watch.in_validation[0])


@pytest.mark.parametrize(
    "average",
    [lambda: ExponentialMovingAverage(decay=0.9), lambda: StochasticWeightAverage(start=0.25, batches=2)],
)
def test_a_resumed_run_goes_on_with_both_bit_for_bit(average: Callable[[], pl.Callback], tmp_path: Path) -> None:
    def module() -> RobustClassifier:
        return defense(network(norm=True))

    class Stop(pl.Callback):
        """Ends the run after two epochs of four, so that schedules are those of the whole."""

        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            trainer.should_stop = trainer.current_epoch == 1

    whole, first, second = module(), module(), module()
    watches = Watch(), Watch()
    fit(whole, average(), watches[0], epochs=4)
    fit(first, average(), Stop(), epochs=4).save_checkpoint(tmp_path / "half.ckpt")
    fit(second, average(), watches[1], epochs=4, resume=tmp_path / "half.ckpt")
    assert same(weights_of(whole), weights_of(second))
    assert same(watches[0].after_step[-1], watches[1].after_step[-1])
    assert len(watches[1].after_step) == 8


def test_the_average_shares_no_memory_with_the_model() -> None:
    average, module = ExponentialMovingAverage(), defense(network(norm=True))
    average.add(module.model, 1.0)
    own = {tensor.data_ptr() for tensor in module.model.state_dict().values()}
    assert not own & {tensor.data_ptr() for tensor in average._average.values()}


def test_the_average_moves_with_the_optimiser_not_with_the_batches() -> None:
    average = ExponentialMovingAverage()
    fit(defense(network()), average, accumulate_grad_batches=2)
    assert average.count == 2


def test_two_averages_at_once_are_refused() -> None:
    with pytest.raises(UserError, match="one average of the weights, got ExponentialMovingAverage and Stochastic"):
        fit(defense(network()), ExponentialMovingAverage(), StochasticWeightAverage())


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_a_decay_out_of_range_is_refused(decay: float) -> None:
    with pytest.raises(UserError, match=r"ema\.decay"):
        ExponentialMovingAverage(decay=decay)


# --- stochastic weight average --------------------------------------------------------------------------------


def test_the_mean_of_the_last_epochs_is_shown_from_its_start_on() -> None:
    module, watch = defense(network()), Watch()
    fit(module, watch, StochasticWeightAverage(start=0.5), epochs=4, limit_val_batches=None)
    ends = watch.at_epoch_end
    assert same(watch.in_validation[1], ends[1])
    assert same(watch.in_validation[2], ends[2])
    for name, average in weights_of(module).items():
        torch.testing.assert_close(average, (ends[2][name] + ends[3][name]) / 2)


def test_a_cycle_ends_with_a_new_average_and_lets_the_learning_rate_fall() -> None:
    module, watch = defense(network(), optimizer=sgd(0.1), schedule=Cosine()), Watch()
    average = StochasticWeightAverage(start=0.2, cycle_epochs=2, learning_rate=0.4, final_learning_rate=0.2)
    fit(module, watch, average, epochs=5)
    assert average.count == 2
    before, cycles = watch.rates[:3], watch.rates[3:-1]  # the rate after step i is that of step i + 1
    assert before == sorted(before, reverse=True)
    expected = [0.04 - 0.02 * step / 8 for step in range(8)] * 2
    assert cycles == pytest.approx(expected)
    assert isinstance(module.schedule, Cosine)  # put back


def test_the_cycles_begin_high_despite_rounding() -> None:
    cycles = Cycles(Constant(), start=3 / 10, length=1 / 10, high=1.0, low=0.0)
    assert [cycles(epoch / 10) for epoch in range(3, 10)] == [1.0] * 7
    assert cycles(0.35) == pytest.approx(0.5)


def test_batch_norm_follows_the_averaged_weights(digits: tuple[Tensor, Tensor]) -> None:
    """Batch norm right behind the images: its statistics are those of the training images, whatever was trained."""
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(64, 10))
    module = StandardTraining(model=model, optimizer=adam, schedule=Constant())
    average = StochasticWeightAverage(start=0.0, batches=3)
    trainer = fit(module, average, epochs=2)
    loader = trainer.datamodule.train_dataloader()  # type: ignore[attr-defined]
    loader.set_epoch(1)
    images = torch.stack([x for x, _ in list(loader)[:3]])
    norm = model[0]
    assert isinstance(norm, nn.BatchNorm2d)
    torch.testing.assert_close(norm.running_mean, images.mean()[None])
    torch.testing.assert_close(norm.running_var, images.flatten(1).var(1).mean()[None])
    assert norm.momentum == 0.1


def test_estimating_statistics_leaves_training_alone() -> None:
    plain, averaged = (defense(network(norm=True, dropout=0.3)) for _ in range(2))
    watches = Watch(), Watch()
    for module, callbacks in (
        (plain, [watches[0]]),
        (averaged, [StochasticWeightAverage(start=0.0, learning_rate=1.0), watches[1]]),
    ):
        torch.manual_seed(0)
        fit(module, *callbacks, epochs=2)
    assert same(watches[0].after_step[-1], watches[1].after_step[-1])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"start": 1.0}, r"swa\.start must be below 1"),
        ({"cycle_epochs": 0}, r"swa\.cycle_epochs must be an integer of at least 1"),
        ({"start": 0.5, "cycle_epochs": 3}, r"swa\.cycle_epochs=3 does not fit behind swa\.start=0\.5"),
    ],
)
def test_an_average_that_would_be_empty_is_refused(options: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        fit(defense(network()), StochasticWeightAverage(**options), epochs=4)


# --- robust overfitting ---------------------------------------------------------------------------------------


def test_the_gap_is_training_minus_held_out_robust_accuracy(digits_model: nn.Module) -> None:
    module = defense(digits_model.train(), optimizer=sgd(0.0))
    trainer = fit(module, RobustAccuracy(WORST, WORST), RobustGap(WORST, images=100), limit_val_batches=None)
    x, y, index = trainer.datamodule.probe_set(100, split="train")  # type: ignore[attr-defined]
    streams = xrobust.randomness.SampleStreams(0, index.tolist())
    x_adv = WORST(digits_model, x, y, generator=streams)
    right = (module.predict(x) == y) & (module.predict(x_adv) == y)
    metrics = trainer.callback_metrics
    assert metrics["train/robust_accuracy"] == right.float().mean()
    gap = metrics["train/robust_accuracy"] - metrics["val/robust_accuracy"]
    assert metrics["val/train_val_robust_gap"] == gap
    assert y.bincount().tolist() == [10] * 10


def test_the_gap_needs_robust_accuracy() -> None:
    with pytest.raises(UserError, match=r"needs val/robust_accuracy, which callbacks\.robust_accuracy logs"):
        fit(defense(network()), RobustGap(WORST, images=10), limit_val_batches=None)


def test_training_stops_when_robust_accuracy_no_longer_rises(digits_model: nn.Module) -> None:
    config = composed("pieces=[early_stopping]", "callbacks.early_stopping.patience=2")["callbacks"]
    stopping = build_all({"early_stopping": config["early_stopping"]}, "callbacks")["early_stopping"]
    module = defense(digits_model.train(), optimizer=sgd(0.0))
    trainer = fit(module, stopping, RobustAccuracy(STEP, STEP), epochs=9, limit_val_batches=None)
    assert trainer.current_epoch == 3


# --- catastrophic overfitting ---------------------------------------------------------------------------------


class Collapsed(nn.Module):
    """Right on every image, and after one step of ε = 0.025, but wrong half-way: a network that has overfitted to FGSM.

    The digits' pixels are multiples of 1/16, rounded to 8 bits, so the perturbation d can be read off; logits are
    multiplied by cos(2π · mean(d)/ε + 0.3), which is as large at ε as at 0 and negative in between.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        image = (16 * x).round().detach() / 16
        free = (image > 0.05) & (image < 0.95)  # pixels that the box does not hold back
        mean = ((x - image) * free).flatten(1).sum(1) / free.flatten(1).sum(1)
        return self.model(image) * torch.cos(2 * torch.pi * mean / 0.025 + 0.3)[:, None]


THIN = ThreatModel("linf", "0.025")
SINGLE, MULTI = FGSM(threat=THIN), PGD(threat=THIN, steps=10, keep="worst")


def watched(model: nn.Module, *callbacks: pl.Callback, epochs: int = 1, **options: Any) -> pl.Trainer:
    monitor = CatastrophicOverfitting(SINGLE, MULTI, images=100, **options)
    module = defense(model.train(), SINGLE, optimizer=sgd(0.0))
    return fit(module, *callbacks, monitor, epochs=epochs, limit_train_batches=1)


def test_a_planted_collapse_is_seen_after_its_first_epoch(digits_model: nn.Module) -> None:
    with pytest.warns(UserWarning, match=r"catastrophic overfitting in epoch 0: accuracy is 9.* under one step"):
        metrics = watched(Collapsed(digits_model)).callback_metrics
    assert metrics["val/single_step_accuracy"] > 0.9 and metrics["val/multi_step_accuracy"] < 0.1
    gap = metrics["val/single_step_accuracy"] - metrics["val/multi_step_accuracy"]
    assert metrics["val/single_step_gap"] == pytest.approx(float(gap))


def test_a_sound_model_raises_no_alarm(digits_model: nn.Module) -> None:
    metrics = watched(digits_model, epochs=2, action="stop").callback_metrics
    assert abs(metrics["val/single_step_gap"]) < 0.2


def test_the_alarm_is_one_line_and_can_stop_the_run(digits_model: nn.Module) -> None:
    with pytest.warns(UserWarning) as warnings:
        trainer = watched(Collapsed(digits_model), epochs=3)
    assert sum("catastrophic" in str(warning.message) for warning in warnings) == 1
    assert trainer.current_epoch == 3
    with pytest.warns(UserWarning, match="training stops"):
        assert watched(Collapsed(digits_model), epochs=3, action="stop").current_epoch == 1


def test_the_training_attack_is_switched_at_its_radius_and_stays_switched(
    digits_model: nn.Module, tmp_path: Path
) -> None:
    model, schedule = Collapsed(digits_model), EpsilonSchedule(Ramp(end=0.5))
    options: dict[str, Any] = {"action": "switch", "switch_to": MULTI}
    with pytest.warns(UserWarning, match="training goes on with PGD"):
        trainer = watched(model, schedule, epochs=2, **options)
    assert trainer.lightning_module.attack == MULTI  # though the schedule moved the radius in between
    trainer.save_checkpoint(tmp_path / "two.ckpt")
    module = defense(model.train(), SINGLE, optimizer=sgd(0.0))
    monitor = CatastrophicOverfitting(SINGLE, MULTI, images=100, **options)
    fit(module, monitor, epochs=3, resume=tmp_path / "two.ckpt", limit_train_batches=1)
    assert module.attack == MULTI


def test_a_collapse_is_relative_to_the_best_at_the_same_radius() -> None:
    monitor = CatastrophicOverfitting(SINGLE, MULTI, max_gap=1.0)
    full, half = THREAT.fraction, THREAT.fraction / 2
    assert not monitor._overfits(half, 0.8, 0.8)
    assert not monitor._overfits(full, 0.3, 0.3)  # a larger radius, not a collapse
    assert not monitor._overfits(full, 0.4, 0.4)
    assert monitor._overfits(full, 0.19, 0.19)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"action": "panic"}, r"catastrophic_overfitting\.action must be one of .* got 'panic'"),
        ({"max_gap": 1.5}, r"catastrophic_overfitting\.max_gap must be at most 1, got 1\.5"),
        ({"action": "switch"}, r"catastrophic_overfitting\.switch_to must be an attack"),
        ({"images": 0}, r"catastrophic_overfitting\.images must be an integer of at least 1"),
    ],
)
def test_bad_values_are_refused_by_name(options: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        CatastrophicOverfitting(SINGLE, MULTI, **options)


@pytest.mark.parametrize(
    ("kind", "options"), [(StandardTraining, {}), (FreeAdversarialTraining, {"threat": MULTI.threat})]
)
def test_there_is_nothing_to_switch_without_a_training_attack(kind: type, options: dict[str, Any]) -> None:
    module = kind(model=network(), optimizer=adam, schedule=Constant(), **options)
    with pytest.raises(UserError, match=f"{kind.__name__} trains with no attack of its own"):
        fit(module, CatastrophicOverfitting(SINGLE, MULTI, action="switch", switch_to=MULTI))


# --- accumulation and clipping --------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [PGDAdversarialTraining, TRADES])
def test_two_accumulated_batches_equal_one_of_twice_the_size(method: Any) -> None:
    """Attacks leave `.grad` alone, and gradients of one batch do not reach the attack on the next."""
    results = []
    for size, parts in ((40, 1), (20, 2)):
        module = method(model=network(), attack=STEP, optimizer=sgd(0.5), schedule=Cosine())
        fit(module, epochs=2, batch_size=size, limit_train_batches=4 * parts, accumulate_grad_batches=parts)
        results.append(weights_of(module))
    for name, weights in results[0].items():
        torch.testing.assert_close(results[1][name], weights, rtol=1e-4, atol=1e-5)


def test_gradients_are_clipped_as_a_whole_after_the_attack() -> None:
    module, watch = defense(network(), STEP, optimizer=sgd(1.0)), Watch()
    before = weights_of(module)
    fit(module, watch, gradient_clip_val=0.01, limit_train_batches=1)
    after = weights_of(module)
    moved = torch.cat([(after[name] - before[name]).flatten() for name in before])
    gradient = torch.cat([g.flatten() for g in watch.gradients[0].values()])
    assert gradient.norm() > 0.02
    torch.testing.assert_close(moved, -0.01 * gradient / gradient.norm(), rtol=1e-2, atol=1e-5)


# --- Penalty on the weights ---


def test_one_step_of_descent_shrinks_the_weights_by_the_penalty_and_leaves_biases_alone() -> None:
    ends = {}
    for strength in (0.0, 0.01):
        module = StandardTraining(model=network(), optimizer=sgd(0.5), schedule=Constant())
        fit(module, L1WeightPenalty(strength), limit_train_batches=2, accumulate_grad_batches=2)  # one step
        ends[strength] = weights_of(module)
    for name, start in weights_of(StandardTraining(model=network(), optimizer=adam, schedule=Constant())).items():
        shrunk = 0.5 * 0.01 * start.sign() if start.dim() > 1 else torch.zeros_like(start)
        torch.testing.assert_close(ends[0.0][name] - ends[0.01][name], shrunk, rtol=1e-4, atol=1e-6)


def test_the_norm_of_the_weights_is_logged() -> None:
    module = StandardTraining(model=network(), optimizer=adam, schedule=Constant())
    trainer = fit(module, L1WeightPenalty(0.0))
    expected = sum(w.abs().sum() for w in module.model.parameters() if w.dim() > 1)
    torch.testing.assert_close(trainer.callback_metrics["train/weight_l1"], expected.detach())


def test_a_negative_penalty_is_refused() -> None:
    with pytest.raises(UserError, match=r"l1_weights.weight .* -1"):
        L1WeightPenalty(-1)
