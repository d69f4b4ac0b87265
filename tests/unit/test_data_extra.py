"""Further training images, and batches that are cut out of and mixed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xrobust.attacks import PGD
from xrobust.data import Arrays, CutMix, Digits, ImageDataModule, MixUp, TrainingLoader
from xrobust.data.augment import Augmentation, cut_out
from xrobust.defenses import MART, TRADES, PGDAdversarialTraining, StandardTraining
from xrobust.defenses.soft_labels import check_soft_labels
from xrobust.errors import UserError
from xrobust.schedules import Constant
from xrobust.threat import ThreatModel

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated")
SMALL = {"num_classes": 3, "channels": 1, "image_size": 4}
EXTRA = 100  # pixels of extra images carry their number + 100


def numbered(count: int, first: int = 0) -> tuple[Tensor, Tensor]:
    """Images that carry their number in every pixel, and the number modulo 3 as label."""
    number = torch.arange(first, first + count)
    return number.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 4).contiguous(), number % 3


@dataclass(kw_only=True, eq=False)
class Toy(ImageDataModule):
    """Sixty training images."""

    def load(self) -> Arrays:
        return Arrays(*numbered(60), *numbered(12))


def loader(extras: int = 40, **options: Any) -> TrainingLoader:
    return TrainingLoader(
        *numbered(60), **{"batch_size": 10, "extra": numbered(extras, EXTRA), "extra_fraction": 0.7, **options}
    )


def numbers(x: Tensor) -> list[int]:
    return (x[:, 0, 0, 0] * 255).round().int().tolist()


def batches_of(source: TrainingLoader) -> list[list[int]]:
    return [numbers(x) for x, _ in source]


# --- extra images ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fraction", "extras"), [(0.7, 7), (0.25, 2), (0.0, 0), (1.0, 10)])
def test_each_batch_has_its_share_of_extra_images_and_the_epoch_its_length(fraction: float, extras: int) -> None:
    batches = batches_of(loader(extra_fraction=fraction))
    assert len(batches) == 6 and all(len(batch) == 10 for batch in batches)
    assert [sum(number >= EXTRA for number in batch) for batch in batches] == [extras] * 6


def test_labels_stay_with_their_images() -> None:
    for x, y in loader():
        assert y.tolist() == [number % 3 for number in numbers(x)]


def test_without_a_share_of_them_extra_images_change_nothing() -> None:
    assert batches_of(loader(extra_fraction=0.0)) == batches_of(TrainingLoader(*numbered(60), batch_size=10))


def test_each_image_comes_as_often_as_the_next_before_it_comes_again() -> None:
    for extras, times in ((150, {0, 1}), (21, {2}), (20, {2, 3})):
        seen = [number for batch in batches_of(loader(extras)) for number in batch]
        counts = np.bincount(seen, minlength=EXTRA + extras)
        assert set(counts[EXTRA:].tolist()) == times
        assert counts[:60].max() == 1


def test_order_is_a_function_of_seed_and_epoch_and_the_epochs_differ() -> None:
    def epoch(number: int, seed: int = 0) -> list[list[int]]:
        source = loader(seed=seed)
        source.set_epoch(number)
        return batches_of(source)

    assert epoch(1) == epoch(1)
    assert epoch(1) != epoch(2) != epoch(2, seed=1)


def test_a_resumed_epoch_goes_on_with_the_batches_that_were_due() -> None:
    whole, first, second = loader(mixes=[CutMix()], num_classes=3), loader(), loader(mixes=[CutMix()], num_classes=3)
    for source in (whole, first):
        source.set_epoch(3)
    expected = list(whole)
    batches = iter(first)
    next(batches), next(batches)
    second.load_state_dict(first.state_dict())
    for (x, y), (x2, y2) in zip(expected[2:], second, strict=True):
        assert torch.equal(x, x2) and torch.equal(y, y2)


@pytest.mark.parametrize("world", [2, 3])
def test_processes_take_disjoint_shares_of_both_sets(world: int) -> None:
    shares = [batches_of(loader(150, batch_size=5, rank=rank, world_size=world)) for rank in range(world)]
    assert len({len(share) for share in shares}) == 1
    seen = [number for share in shares for batch in share for number in batch]
    assert len(seen) == len(set(seen))
    assert all(sum(number >= EXTRA for number in batch) == 4 for share in shares for batch in share)


def save(path: Path, images: str = "x_train", labels: str = "y_train", **changes: Any) -> str:
    x, y = numbered(30, EXTRA)
    arrays = {images: x.numpy()[:, 0, :, :, None], labels: y.numpy(), **changes}  # (N, H, W, C), as published
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return str(path)


@pytest.mark.parametrize("names", [("x_train", "y_train"), ("image", "label")])
def test_extra_images_are_read_under_both_names_and_none_is_held_out(names: tuple[str, str], tmp_path: Path) -> None:
    data = Toy(**SMALL, batch_size=10, extra=save(tmp_path / "extra.npz", *names), extra_fraction=0.5)
    for x, y in data.train_dataloader():
        assert sum(number >= EXTRA for number in numbers(x)) == 5
        assert y.tolist() == [number % 3 for number in numbers(x)]
    held = [number for x, _ in data.val_dataloader() for number in numbers(x)]
    assert len(held) == 6 and max(held) < EXTRA


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"y_train": None}, "must hold x_train and y_train or image and label"),
        ({"y_train": np.arange(30)}, r"labels from 0 to 29, but data\.num_classes=3"),
        ({"y_train": np.arange(29) % 3}, "x_train has 30 images but y_train has 29 labels"),
        ({"x_train": np.zeros((30, 5, 5, 1), np.uint8)}, r"images of 5 × 5 pixels, but data\.image_size=4"),
        ({"x_train": np.zeros((30, 4, 4, 3), np.uint8)}, r"does not fit data\.channels=1"),
        ({"x_train": np.zeros((30, 4, 4, 1))}, r"x_train must be uint8 in 0 \.\.\. 255, got float64"),
    ],
)
def test_extra_images_that_do_not_fit_are_refused(changes: dict, words: str, tmp_path: Path) -> None:
    data = Toy(**SMALL, extra=save(tmp_path / "extra.npz", **changes))
    with pytest.raises(UserError, match=r"data\.extra=.*" + words):
        data.setup()


def test_a_missing_file_and_a_share_out_of_range_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.npz does not exist"):
        Toy(**SMALL, extra=str(tmp_path / "none.npz")).setup()
    for fraction in (-0.1, 1.1):
        with pytest.raises(UserError, match=r"data\.extra_fraction must be at"):
            Toy(**SMALL, extra_fraction=fraction)


# --- cutout ---------------------------------------------------------------------------------------------------


def test_a_cutout_is_a_black_square_around_its_centre_as_far_as_it_lies_in_the_image() -> None:
    images = torch.full((3, 2, 6, 7), 9, dtype=torch.uint8)
    cut = cut_out(images, torch.tensor([[2, 3], [0, 6], [5, 0]]), 3)
    expected = images.clone()
    expected[0, :, 1:4, 2:5] = 0
    expected[1, :, 0:2, 5:7] = 0
    expected[2, :, 4:6, 0:2] = 0
    assert torch.equal(cut, expected)
    even = cut_out(images[:1], torch.tensor([[2, 3]]), 2)
    assert (even[0, 0, 1:3, 2:4] == 0).all() and (even == 0).sum() == 8


def test_the_centres_of_cutouts_cover_the_image_evenly() -> None:
    augmentation = Augmentation(cutout=1)
    images = torch.ones(20_000, 1, 4, 5, dtype=torch.uint8)
    cut = augmentation.apply(images, augmentation.draw(20_000, torch.Generator().manual_seed(0)))
    assert ((cut == 0).flatten(1).sum(1) == 1).all()
    assert ((cut == 0).float().mean(0) - 1 / 20).abs().max() < 0.01


def test_a_cutout_leaves_crops_and_flips_as_they_are() -> None:
    images = torch.randint(1, 256, (30, 1, 8, 8), dtype=torch.uint8)
    plain, cut = (
        next(
            iter(TrainingLoader(images, torch.arange(30), batch_size=30, augmentation=Augmentation(2, "edge", True, c)))
        )
        for c in (0, 3)
    )
    assert torch.equal(plain[1], cut[1])
    black = cut[0] == 0
    assert torch.equal(cut[0][~black], plain[0][~black]) and 0 < black.float().mean() < 9 / 64 + 1e-6


@pytest.mark.parametrize("size", [-1, 4, 2.5])
def test_a_cutout_that_is_no_part_of_the_image_is_refused(size: Any) -> None:
    with pytest.raises(UserError, match=r"data\.cutout"):
        Toy(**SMALL, cutout=size)


# --- mixes ----------------------------------------------------------------------------------------------------


def two_coloured(count: int = 2000) -> tuple[Tensor, Tensor]:
    """White images of class 1 and black ones of class 0: a mixed image's brightness is its share of class 1."""
    y = torch.arange(count) % 2
    return y.float().view(-1, 1, 1, 1).expand(-1, 3, 8, 8).contiguous(), F.one_hot(y, 2).float()


@pytest.mark.parametrize("mix", [MixUp(alpha=0.5), MixUp(), CutMix(), CutMix(alpha=3.0)])
def test_labels_are_mixed_exactly_as_the_pixels_are(mix: Any) -> None:
    x, y = mix(*two_coloured(), torch.Generator().manual_seed(0))
    torch.testing.assert_close(x.mean((1, 2, 3)), y[:, 1])
    torch.testing.assert_close(y.sum(1), torch.ones(len(y)))
    assert x.min() >= 0 and x.max() <= 1
    if isinstance(mix, CutMix):
        assert set(x.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("alpha", [0.3, 1.0, 4.0])
def test_the_share_of_the_partner_follows_the_beta_distribution(alpha: float) -> None:
    """E λ = 1/2 and Var λ = 1/(4(2α + 1)), seen where a black image met a white one."""
    y = MixUp(alpha=alpha)(*two_coloured(20_000), torch.Generator().manual_seed(0))[1][:, 1]
    mixed = y[(y > 0) & (y < 1)].double()
    assert abs(mixed.mean() - 0.5) < 0.01
    assert abs(mixed.var() - 1 / (4 * (2 * alpha + 1))) < 0.01


def test_a_cut_box_is_one_rectangle_with_the_proportions_of_the_image() -> None:
    x = torch.rand(200, 1, 16, 16)
    mixed, _ = CutMix()(x, torch.eye(200), torch.Generator().manual_seed(0))
    for changed in (mixed != x)[:, 0]:
        rows, columns = changed.any(1).nonzero(), changed.any(0).nonzero()
        if len(rows):
            box = changed[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            assert box.all()
            on_border = rows.min() == 0 or columns.min() == 0 or rows.max() == 15 or columns.max() == 15
            assert on_border or len(rows) == len(columns)


@pytest.mark.parametrize("kind", [MixUp, CutMix])
@pytest.mark.parametrize("alpha", [0, -1.0, float("nan"), "one"])
def test_an_alpha_out_of_range_is_refused(kind: Any, alpha: Any) -> None:
    with pytest.raises(UserError, match=r"data\.mix\.\w+\.alpha must be above 0"):
        kind(alpha=alpha)


def test_mixed_batches_differ_by_process_batch_and_epoch_and_not_otherwise() -> None:
    def labels(epoch: int = 0, **options: Any) -> list[Tensor]:
        source = loader(mixes=[MixUp()], num_classes=3, batch_size=5, world_size=2, **{"rank": 0, **options})
        source.set_epoch(epoch)
        return [y for _, y in source]

    once, again, later, other = labels(), labels(), labels(epoch=1), labels(rank=1)
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
    assert not any(torch.equal(once[0], y) for y in (once[1], later[0], other[0]))


# --- soft labels in training ----------------------------------------------------------------------------------

THREAT = ThreatModel("linf", "0.1")


def module(kind: Any, **options: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(64, 10))
    return kind(model=model, optimizer=lambda p: torch.optim.SGD(p, 0.1), schedule=Constant(), **options)


def pgd(**options: Any) -> PGD:
    return PGD(threat=THREAT, steps=2, **options)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (StandardTraining, {}),
        (PGDAdversarialTraining, {"attack": pgd()}),
        (PGDAdversarialTraining, {"attack": pgd(), "batch_norm": "both"}),
        (TRADES, {"attack": pgd(loss="kl")}),
    ],
)
def test_methods_on_the_cross_entropy_take_soft_labels_and_the_check_leaves_no_trace(
    kind: Any, options: dict, digits: tuple[Tensor, Tensor]
) -> None:
    method = module(kind, **options).train()
    state, drawn = {k: v.clone() for k, v in method.state_dict().items()}, method.generator.get_state()
    check_soft_labels(method, digits[0][:20], 10)
    assert all(torch.equal(state[name], tensor) for name, tensor in method.state_dict().items())
    assert torch.equal(drawn, method.generator.get_state())


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        (MART, {"attack": pgd()}, "MART with the attack PGD"),
        (PGDAdversarialTraining, {"attack": pgd(keep="worst")}, "PGDAdversarialTraining with the attack PGD"),
        (PGDAdversarialTraining, {"attack": pgd(loss="margin")}, "PGDAdversarialTraining with the attack PGD .*margin"),
    ],
)
def test_methods_and_attacks_that_need_one_class_refuse_soft_labels(
    kind: Any, options: dict, words: str, digits: tuple[Tensor, Tensor]
) -> None:
    with pytest.raises(UserError, match=f"data.mix makes soft labels, which {words}.* cannot be trained on"):
        check_soft_labels(module(kind, **options).train(), digits[0][:20], 10)


def test_a_method_that_reads_soft_labels_wrongly_is_refused(digits: tuple[Tensor, Tensor]) -> None:
    class Wrong(StandardTraining):
        def training_loss(self, x: Tensor, y: Tensor) -> Any:
            return super().training_loss(x, y if y.dim() == 1 else y.softmax(1))

    with pytest.raises(UserError, match="Wrong cannot be trained on"):
        check_soft_labels(module(Wrong).train(), digits[0][:20], 10)


def test_the_soft_loss_is_the_mean_of_the_hard_ones(digits: tuple[Tensor, Tensor]) -> None:
    method, x = module(StandardTraining).eval(), digits[0][:10]
    one, other = torch.full((10,), 3), torch.full((10,), 8)
    soft = 0.3 * F.one_hot(one, 10) + 0.7 * F.one_hot(other, 10).float()
    expected = 0.3 * method.training_loss(x, one).value + 0.7 * method.training_loss(x, other).value
    torch.testing.assert_close(method.training_loss(x, soft).value, expected)


def test_a_run_with_mixed_extra_images_trains_and_logs_its_accuracy(tmp_path: Path) -> None:
    rows = torch.randint(0, 256, (50, 8, 8, 1), dtype=torch.uint8).numpy()
    np.savez(tmp_path / "extra.npz", image=rows, label=np.arange(50) % 10)
    data = Digits(
        num_classes=10,
        channels=1,
        image_size=8,
        cutout=2,
        extra=str(tmp_path / "extra.npz"),
        extra_fraction=0.2,
        mix={"cutmix": CutMix()},
    )
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=False,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module(PGDAdversarialTraining, attack=pgd()), datamodule=data)
    assert 0 < trainer.callback_metrics["train/adversarial_accuracy"] < 1
    assert trainer.callback_metrics["train/loss"] < 2.4
    assert data.summary()["train"] == 1294
