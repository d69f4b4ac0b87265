"""Data: splits, batches, resuming, distribution, sources, mistakes."""

import gzip
import struct
from dataclasses import dataclass

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from PIL import Image
from pytorch_lightning.callbacks import ModelCheckpoint
from torchvision.transforms.v2 import functional as tv

from xrobust.data import (
    Arrays,
    Digits,
    EvaluationLoader,
    FolderImages,
    ImageDataModule,
    MNIST5k,
    NpzImages,
    TorchvisionImages,
    TrainingLoader,
)
from xrobust.data.augment import Augmentation, crop, flip
from xrobust.data.split import balanced_choice, stratified_split
from xrobust.errors import UserError

MNIST = {"num_classes": 10, "channels": 1, "image_size": 28}
SMALL = {"num_classes": 3, "channels": 1, "image_size": 4}


def numbered(count: int, channels: int = 1, side: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Images that carry their number in every pixel, and the number as label."""
    number = torch.arange(count)
    return number.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, channels, side, side).contiguous(), number


def labels_of(loader) -> list[list[int]]:
    return [y.tolist() for _, y in loader]


@dataclass(kw_only=True, eq=False)
class Toy(ImageDataModule):
    """Sixty training images and twelve test images of three classes; pixel 0 of an image is its number."""

    loads: int = 0

    def load(self) -> Arrays:
        self.loads += 1
        x, y = numbered(60)
        return Arrays(x, y % 3, x[:12], y[:12] % 3)


# --- splits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fraction", [0.1, 0.25, 1 / 3, 0.7])
@pytest.mark.parametrize("sizes", [[10, 20, 71], [4, 4, 4, 4, 4], [1, 0, 9]])
def test_a_split_is_disjoint_complete_exact_and_stratified(fraction, sizes):
    count = sum(sizes)
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    labels = labels[torch.randperm(count, generator=torch.Generator().manual_seed(0))]
    rest, held = stratified_split(labels, fraction, seed=3)
    assert sorted(torch.cat([rest, held]).tolist()) == list(range(count))
    assert len(held) == round(count * fraction)
    shares = labels[held].bincount(minlength=len(sizes)) - fraction * torch.tensor(sizes)
    assert (shares.abs() < 1).all()


def test_the_version_of_a_set_tells_images_labels_and_split_apart():
    @dataclass(kw_only=True, eq=False)
    class Changed(Toy):
        def load(self):
            arrays = super().load()
            arrays.x_test[3, 0, 1, 2] += 1
            return arrays

    versions = [
        kind(num_classes=3, channels=1, image_size=4, split_seed=seed).version()
        for kind, seed in ((Toy, 0), (Toy, 0), (Toy, 1), (Changed, 0))
    ]
    assert versions[0] == versions[1] and len(set(versions)) == 3


def test_a_split_is_a_function_of_its_seed():
    labels = torch.arange(100) % 4
    once, again, other = (stratified_split(labels, 0.2, seed)[1] for seed in (1, 1, 2))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


def test_a_balanced_choice_takes_turns_while_the_classes_last():
    labels = torch.tensor([0] * 50 + [1] * 2 + [2] * 10)
    assert labels[balanced_choice(labels, 6, seed=0)].bincount().tolist() == [2, 2, 2]
    assert labels[balanced_choice(labels, 14, seed=0)].bincount().tolist() == [6, 2, 6]
    assert len(set(balanced_choice(labels, 62, seed=0).tolist())) == 62


# --- augmentation -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "torchvision_mode"), [("zeros", "constant"), ("edge", "edge")])
def test_batched_crop_equals_padding_and_cropping_each_image(mode, torchvision_mode):
    images = torch.randint(0, 256, (25, 3, 8, 9), dtype=torch.uint8)
    corners = torch.cartesian_prod(torch.arange(5), torch.arange(5))
    padded = tv.pad(images, [2, 2, 2, 2], padding_mode=torchvision_mode)
    each = [tv.crop(image, int(top), int(left), 8, 9) for image, (top, left) in zip(padded, corners, strict=True)]
    cropped = crop(images, corners, 2, mode)
    assert cropped.dtype == torch.uint8
    assert torch.equal(cropped, torch.stack(each))


def test_flip_mirrors_the_chosen_images_only():
    images = torch.randint(0, 256, (4, 3, 5, 6), dtype=torch.uint8)
    flipped = flip(images, torch.tensor([True, False, False, True]))
    assert torch.equal(flipped[[0, 3]], tv.horizontal_flip(images[[0, 3]]))
    assert torch.equal(flipped[[1, 2]], images[[1, 2]])


def test_augmentation_covers_all_offsets_and_both_directions_evenly():
    draws = Augmentation(crop_padding=2, flip=True).draw(30_000, torch.Generator().manual_seed(0))
    for column, kinds in ((0, 5), (1, 5), (2, 2)):
        shares = draws[:, column].bincount() / len(draws)
        assert len(shares) == kinds
        assert (shares - 1 / kinds).abs().max() < 0.02


def test_augmentation_is_off_unless_asked_for():
    images = torch.randint(0, 256, (6, 1, 4, 4), dtype=torch.uint8)
    draws = Augmentation().draw(6, torch.Generator().manual_seed(0))
    assert torch.equal(Augmentation().apply(images, draws), images)


# --- the training loader ------------------------------------------------------------------------------------


def test_training_batches_are_unit_floats_with_their_own_labels():
    x, y = numbered(50)
    for batch, labels in TrainingLoader(x, y, batch_size=8):
        assert batch.shape == (8, 1, 4, 4) and batch.dtype == torch.float32 and labels.dtype == torch.int64
        assert torch.equal(batch[:, 0, 0, 0], labels / 255)


def test_an_epoch_shows_each_image_at_most_once_and_drops_the_incomplete_batch():
    loader = TrainingLoader(*numbered(50), batch_size=8)
    batches = labels_of(loader)
    assert len(batches) == len(loader) == 6
    assert len({label for batch in batches for label in batch}) == 48


def test_a_set_smaller_than_a_batch_is_one_batch():
    loader = TrainingLoader(*numbered(5), batch_size=8)
    assert [sorted(batch) for batch in labels_of(loader)] == [[0, 1, 2, 3, 4]]


def test_order_and_augmentation_are_functions_of_seed_and_epoch():
    images = torch.randint(0, 256, (40, 3, 8, 8), dtype=torch.uint8)

    def epoch(seed: int, number: int) -> torch.Tensor:
        loader = TrainingLoader(
            images,
            torch.arange(40),
            batch_size=10,
            seed=seed,
            augmentation=Augmentation(2, "zeros", flip=True),
        )
        loader.set_epoch(number)
        return torch.cat([x for x, _ in loader])

    assert torch.equal(epoch(1, 5), epoch(1, 5))
    assert not torch.equal(epoch(1, 5), epoch(1, 6))
    assert not torch.equal(epoch(1, 5), epoch(2, 5))


def test_the_global_random_state_is_neither_read_nor_moved():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    data = Toy(**SMALL, crop_padding=1, flip=True)
    first = labels_of(data.train_dataloader())
    data.probe_set(6)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert labels_of(Toy(**SMALL, crop_padding=1, flip=True).train_dataloader()) == first


@pytest.mark.parametrize(("count", "world"), [(50, 2), (51, 3), (64, 2)])
def test_processes_train_on_disjoint_shares_of_equal_size(count, world):
    images, labels = numbered(count)
    loaders = [TrainingLoader(images, labels, batch_size=4, rank=rank, world_size=world) for rank in range(world)]
    shares = [labels_of(loader) for loader in loaders]
    assert len({len(share) for share in shares}) == 1
    assert all(len(batch) == 4 for share in shares for batch in share)
    seen = [label for share in shares for batch in share for label in batch]
    assert len(seen) == len(set(seen)) > count - 4 * world - world


def test_an_image_is_augmented_alike_whatever_the_number_of_processes():
    images = torch.randint(0, 256, (24, 1, 8, 8), dtype=torch.uint8)

    def augmented(world: int) -> dict[int, torch.Tensor]:
        loaders = [
            TrainingLoader(
                images,
                torch.arange(24),
                batch_size=4,
                augmentation=Augmentation(2, "edge", flip=True),
                rank=rank,
                world_size=world,
            )
            for rank in range(world)
        ]
        return {int(y): x for loader in loaders for xs, ys in loader for x, y in zip(xs, ys, strict=True)}

    alone, together = augmented(1), augmented(3)
    assert alone.keys() == together.keys()
    assert all(torch.equal(alone[number], together[number]) for number in alone)


def test_a_restored_loader_goes_on_where_the_saved_one_stood():
    whole = TrainingLoader(*numbered(40), batch_size=5)
    whole.set_epoch(3)
    expected = labels_of(whole)
    interrupted = TrainingLoader(*numbered(40), batch_size=5)
    interrupted.set_epoch(3)
    batches = iter(interrupted)
    seen = [next(batches)[1].tolist() for _ in range(3)]
    resumed = TrainingLoader(*numbered(40), batch_size=5)
    resumed.load_state_dict(interrupted.state_dict())
    resumed.set_epoch(3)
    assert seen + labels_of(resumed) == expected
    resumed.set_epoch(4)
    assert len(labels_of(resumed)) == len(resumed)


# --- the evaluation loader ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "size", "world"), [(50, 8, 1), (50, 8, 2), (50, 8, 3), (7, 100, 3), (5, 4, 4)])
def test_processes_together_evaluate_each_image_exactly_once(count, size, world):
    images, labels = numbered(count)
    loaders = [EvaluationLoader(images, labels, batch_size=size, rank=rank, world_size=world) for rank in range(world)]
    seen = [label for loader in loaders for batch in labels_of(loader) for label in batch]
    assert sorted(seen) == list(range(count))
    for loader in loaders:
        assert len(labels_of(loader)) == len(loader) >= 1


def test_an_evaluation_batch_knows_where_it_stands_in_the_set():
    images, labels = numbered(50)
    for rank in range(3):
        loader = EvaluationLoader(images, labels, batch_size=8, rank=rank, world_size=3)
        for batch_idx, (x, y) in enumerate(loader):
            first = loader.first_index(batch_idx)
            assert y.tolist() == list(range(first, first + len(y)))
            assert torch.equal(x[:, 0, 0, 0], y / 255)


def test_fewer_images_than_processes_are_refused():
    with pytest.raises(UserError, match="3 images are too few for 4 processes"):
        EvaluationLoader(*numbered(3), batch_size=1, world_size=4)


# --- the data module ----------------------------------------------------------------------------------------


def test_the_set_is_loaded_once_and_split_into_three_parts():
    data = Toy(**SMALL, validation_fraction=0.2)
    data.setup("fit")
    data.setup("test")
    sizes = {"train": 48, "validation": 12, "test": 12, "classes": 3, "channels": 1, "image_size": 4}
    assert data.summary() == sizes
    assert data.loads == 1
    train = {int(v * 255 + 0.5) for x, _ in data.train_dataloader() for v in x[:, 0, 0, 0]}
    validation = {int(v * 255 + 0.5) for x, _ in data.val_dataloader() for v in x[:, 0, 0, 0]}
    assert len(train) == 48 and len(validation) == 12 and not train & validation
    assert data.class_names == ["0", "1", "2"]


def test_the_split_seed_chooses_the_validation_set_and_the_seed_does_not():
    def validation(**seeds: int) -> list:
        return [x[:, 0, 0, 0].tolist() for x, _ in Toy(**SMALL, **seeds).val_dataloader()]

    assert validation(seed=1) == validation(seed=2) != validation(split_seed=1)


def test_probe_images_are_fixed_balanced_and_from_the_validation_set():
    data = Toy(**SMALL, validation_fraction=0.5)
    x, y, index = data.probe_set(9)
    assert y.bincount().tolist() == [3, 3, 3]
    images, labels = (torch.cat(parts) for parts in zip(*data.val_dataloader(), strict=True))
    assert torch.equal(x, images[index]) and torch.equal(y, labels[index])
    assert torch.equal(data.probe_set(4)[2], index[:4])
    assert not torch.equal(data.probe_set(9, seed=1)[2], index)


@pytest.mark.parametrize("n", [0, 31])
def test_a_probe_set_is_not_larger_than_the_validation_set(n):
    with pytest.raises(UserError, match=f"between 1 and 30 images .* got {n}"):
        Toy(**SMALL, validation_fraction=0.5).probe_set(n)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch_size": 0}, "data.batch_size must be an integer of at least .*, got 0"),
        ({"batch_size": "many"}, "data.batch_size must be an integer of at least .*, got 'many'"),
        ({"eval_batch_size": 2.5}, "data.eval_batch_size must be an integer of at least .*, got 2.5"),
        ({"validation_fraction": 0}, "data.validation_fraction=0 .*selected on held-out"),
        ({"validation_fraction": 1.0}, "data.validation_fraction=1.0"),
        ({"validation_fraction": "half"}, "data.validation_fraction='half'"),
        ({"crop_padding": -1}, "data.crop_padding must be an integer of at least .*, got -1"),
        ({"crop_padding": 4}, "data.crop_padding=4 must be below data.image_size=4"),
        ({"crop_mode": "reflect"}, "data.crop_mode must be one of 'zeros', 'edge', got 'reflect'"),
        ({"num_classes": 1}, "data.num_classes must be an integer of at least .*, got 1"),
        ({"mean": [0.5, 0.5]}, "data.mean=.* must have 1 entries"),
        ({"class_names": ["a"]}, "data.class_names=.* must have 3 entries"),
        ({"split_seed": None}, "data.split_seed must be an integer of at least .*, got None"),
    ],
)
def test_values_out_of_range_are_refused_at_once(wrong, message):
    with pytest.raises(UserError, match=message):
        Toy(**{**SMALL, **wrong})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_classes": 2}, r"data.num_classes=2 allows labels 0 ... 1, .* from 0 to 2"),
        ({"num_classes": 4}, "data.num_classes=4, .* training images of 3 classes"),
        ({"image_size": 8}, r"data.image_size=8 do not fit .* \(1, 4, 4\)"),
        ({"channels": 3}, r"data.channels=3 .* \(1, 4, 4\)"),
        ({"validation_fraction": 0.001}, "leaves 60 for training and 0 for validation"),
    ],
)
def test_facts_that_the_arrays_contradict_are_refused_in_setup(wrong, message):
    data = Toy(**{**SMALL, **wrong})
    with pytest.raises(UserError, match=message):
        data.setup()


# --- under Lightning ----------------------------------------------------------------------------------------


class Recorder(pl.LightningModule):
    """Notes the batches it sees, as (epoch, numbers of the images)."""

    def __init__(self, stop_after: int | None = None):
        super().__init__()
        self.linear = torch.nn.Linear(16, 3)
        self.stop_after = stop_after
        self.seen: list[tuple[int, list[int]]] = []

    def training_step(self, batch, batch_idx):
        if len(self.seen) == self.stop_after:
            raise KeyboardInterrupt
        x, y = batch
        self.seen.append((self.current_epoch, (x[:, 0, 0, 0] * 255).round().int().tolist()))
        return F.cross_entropy(self.linear(x.flatten(1)), y)

    def validation_step(self, batch, batch_idx):
        assert self.trainer.val_dataloaders.first_index(batch_idx) == 5 * batch_idx

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def trainer(**arguments) -> pl.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return pl.Trainer(accelerator="cpu", devices=1, **{**quiet, "enable_checkpointing": False, **arguments})


def toy() -> Toy:
    return Toy(**SMALL, batch_size=10, eval_batch_size=5, validation_fraction=1 / 6)


LIGHTNING_WARNINGS = pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*")


@LIGHTNING_WARNINGS
def test_lightning_uses_the_loaders_as_they_are_and_announces_the_epoch():
    model, fit = Recorder(), trainer(max_epochs=2)
    fit.fit(model, datamodule=toy())
    assert type(fit.train_dataloader) is TrainingLoader
    assert type(fit.val_dataloaders) is EvaluationLoader
    loader = toy().train_dataloader()
    expected = []
    for epoch in range(2):
        loader.set_epoch(epoch)
        expected += [(epoch, (x[:, 0, 0, 0] * 255).round().int().tolist()) for x, _ in loader]
    assert model.seen == expected
    assert expected[0][1] != expected[5][1]


@LIGHTNING_WARNINGS
def test_overfitting_repeats_the_same_batches():
    model = Recorder()
    with pytest.warns(UserWarning, match="turning off the train dataloader shuffling"):
        trainer(max_epochs=2, overfit_batches=2, limit_val_batches=0).fit(model, datamodule=toy())
    assert [batch for _, batch in model.seen[:2]] == [batch for _, batch in model.seen[2:]]


@LIGHTNING_WARNINGS
@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
@pytest.mark.parametrize(
    "saving",
    [
        {"every_n_train_steps": 7},
        {"every_n_train_steps": 5},
        {"every_n_epochs": 1, "save_on_train_epoch_end": True},
        {"every_n_epochs": 1, "save_on_train_epoch_end": False},
    ],
    ids=["middle of an epoch", "last batch", "end of the epoch", "end of validation"],
)
def test_a_resumed_run_sees_the_batches_that_the_interrupted_one_would_have_seen(tmp_path, saving):
    whole = Recorder()
    trainer(max_epochs=4).fit(whole, datamodule=toy())
    saver = ModelCheckpoint(dirpath=tmp_path, filename="last", enable_version_counter=False, **saving)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        interrupted = trainer(max_epochs=4, enable_checkpointing=True, callbacks=[saver])
        interrupted.fit(Recorder(stop_after=9), datamodule=toy())
    steps = torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"]
    assert steps == saving.get("every_n_train_steps", 5)
    resumed = Recorder()
    trainer(max_epochs=4).fit(resumed, datamodule=toy(), ckpt_path=tmp_path / "last.ckpt")
    assert resumed.seen == whole.seen[steps:]


# --- sources ------------------------------------------------------------------------------------------------


def test_mnist5k_is_balanced_and_its_test_set_is_always_the_same():
    data, other = MNIST5k(**MNIST), MNIST5k(**MNIST, split_seed=1)
    assert data.summary() == {
        "train": 3600,
        "validation": 400,
        "test": 1000,
        "classes": 10,
        "channels": 1,
        "image_size": 28,
    }
    for part, each in (("train", 360), ("validation", 40), ("test", 100)):
        assert data._part(part)[1].bincount().tolist() == [each] * 10
    assert torch.equal(data._part("test")[0], other._part("test")[0])
    images = torch.cat([data._part(part)[0] for part in ("train", "validation", "test")])
    assert images.dtype == torch.uint8 and images.max() == 255
    assert len(images.flatten(1).unique(dim=0)) == 5000  # no image is in two parts


def test_digits_are_scaled_exactly():
    data = Digits(num_classes=10, channels=1, image_size=8)
    assert data.summary()["test"] == 359
    assert sum(data.summary()[part] for part in ("train", "validation", "test")) == 1797
    assert data._part("train")[0].unique().tolist() == [round(value * 255 / 16) for value in range(17)]


def save(path, **changes):
    """A small valid .npz file with some arrays replaced, or left out where None."""
    x, y = numbered(12)
    arrays = {
        "x_train": x[:, 0].numpy(),
        "y_train": y.numpy() % 3,
        "x_test": x[:3, 0].numpy(),
        "y_test": y[:3].numpy(),
    }
    np.savez(path, **{key: value for key, value in {**arrays, **changes}.items() if value is not None})
    return path


@pytest.mark.parametrize("shape", [(12, 3, 4, 4), (12, 4, 4, 3)])
def test_npz_images_may_have_their_channels_first_or_last(tmp_path, shape):
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    path = save(tmp_path / "a.npz", x_train=images, x_test=images[:3])
    data = NpzImages(path=str(path), num_classes=3, channels=3, image_size=4, validation_fraction=0.25)
    loaded = data.load().x_train.numpy()
    assert np.array_equal(loaded, images if shape[1] == 3 else images.transpose(0, 3, 1, 2))
    assert data.summary()["train"] == 9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": None}, "lacks y_test; it must hold x_train, y_train, x_test, y_test"),
        ({"x_train": np.zeros((12, 4, 4), np.float32)}, r"x_train must be uint8 .* float32; .* round\(255"),
        ({"x_train": np.zeros((11, 4, 4), np.uint8)}, "x_train has 11 images but y_train has 12 labels"),
        ({"x_test": np.zeros((0, 4, 4), np.uint8), "y_test": np.zeros(0, int)}, "x_test has no images"),
        ({"x_train": np.zeros((12, 16), np.uint8)}, r"shape \(12, 16\), which does not fit data.channels=1"),
        ({"x_test": np.uint8(3)}, r"x_test has shape \(\)"),
        ({"y_train": np.zeros(12)}, "y_train must be integers"),
        ({"y_train": np.zeros((12, 1), int)}, r"y_train must be integers of shape \(N,\)"),
        ({"y_test": np.array([0, 1, 3])}, "labels 0 ... 2, .* from 0 to 3"),
        ({"y_test": np.array([0, 1, -1])}, "from -1 to 1"),
        ({"y_train": np.array([None] * 12)}, "not a readable .npz file"),
    ],
)
def test_defects_of_an_npz_file_are_named(tmp_path, changes, message):
    path = save(tmp_path / "a.npz", **changes)
    with pytest.raises(UserError, match=message):
        NpzImages(path=str(path), **SMALL).setup()


def test_an_unreadable_npz_file_is_named(tmp_path):
    x, y = numbered(12)
    x = torch.randint(0, 256, x.shape).to(torch.uint8).numpy()
    np.savez_compressed(tmp_path / "a.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    whole = (tmp_path / "a.npz").read_bytes()
    np.save(tmp_path / "alone.npy", x)
    contents = {
        "cut": whole[:300],
        "damaged": whole[:150] + b"\xff" * 10 + whole[160:],
        "text": b"not an archive",
        "empty": b"",
        "alone": (tmp_path / "alone.npy").read_bytes(),
    }
    for name, content in contents.items():
        path = tmp_path / f"{name}.npz"
        path.write_bytes(content)
        with pytest.raises(UserError, match=rf"{name}.npz is not a readable .npz file"):
            NpzImages(path=str(path), **SMALL).setup()
    with pytest.raises(UserError, match=r"nowhere.npz does not exist"):
        NpzImages(path=str(tmp_path / "nowhere.npz"), **SMALL).setup()


def write_idx(path, array: np.ndarray) -> None:
    """MNIST's file format."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + array.tobytes())
    with gzip.open(f"{path}.gz", "wb") as file:
        file.write(header + array.tobytes())


@pytest.fixture
def mnist_files(tmp_path):
    x, y = numbered(30, side=28)
    for part, count in (("train", 30), ("t10k", 6)):
        write_idx(tmp_path / "FashionMNIST" / "raw" / f"{part}-images-idx3-ubyte", x[:count, 0].numpy())
        write_idx(
            tmp_path / "FashionMNIST" / "raw" / f"{part}-labels-idx1-ubyte",
            (y[:count] % 10).to(torch.uint8).numpy(),
        )
    return tmp_path


@pytest.mark.parametrize("download", [False, True])
def test_torchvision_files_are_read_and_not_fetched_again(mnist_files, download):
    facts = {**MNIST, "validation_fraction": 1 / 3}
    data = TorchvisionImages(dataset="FashionMNIST", root=str(mnist_files), download=download, **facts)
    assert data.summary()["train"] == 20 and data.summary()["test"] == 6
    assert torch.equal(data.load().x_train, numbered(30, side=28)[0])


def test_an_npz_file_under_the_root_goes_first(mnist_files):
    x, y = numbered(40, side=28)
    arrays = {"x_train": x[:, 0].numpy(), "y_train": y.numpy() % 10}
    np.savez(mnist_files / "fashion_mnist.npz", x_test=arrays["x_train"], y_test=arrays["y_train"], **arrays)
    data = TorchvisionImages(dataset="FashionMNIST", root=str(mnist_files), **MNIST)
    assert data.summary()["test"] == 40


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("MNIST", r"MNIST is not in data.root=.*: set data.download=true, or put .*/mnist.npz"),
        ("SVHN", r"SVHN is not in data.root=.*: set data.download=true, or put .*/svhn.npz"),
        ("CIFAR100", r"CIFAR100 is not in data.root=.*: set data.download=true, or put .*/cifar100.npz"),
        ("MNST", r"data.dataset='MNST' is not in torchvision.datasets .* did you mean MNIST"),
        ("FakeData", r"data.dataset='FakeData' does not work here, use data=arrays"),
    ],
)
def test_a_missing_torchvision_set_says_how_to_get_it(tmp_path, dataset, message):
    with pytest.raises(UserError, match=message):
        TorchvisionImages(dataset=dataset, root=str(tmp_path), **MNIST).setup()


@pytest.fixture
def folder(tmp_path):
    for part, count in (("train", 6), ("test", 2)):
        for shade, name in enumerate(("cat", "ant")):
            place = tmp_path / part / name
            place.mkdir(parents=True)
            (place / "notes.txt").write_text("not an image")
            for number in range(count):
                Image.new("RGB", (20, 10 + number), (100 * shade, number, 200)).save(place / f"{number}.png")
    return tmp_path


def test_folder_images_are_resized_and_named_after_their_folders(folder):
    data = FolderImages(root=str(folder), num_classes=2, channels=3, image_size=8, validation_fraction=0.5)
    assert data.summary()["train"] == 6 and data.summary()["test"] == 4
    assert data.class_names == ["ant", "cat"]
    x, y, _ = data.probe_set(4)
    assert x.shape == (4, 3, 8, 8)
    torch.testing.assert_close(x[:, 0].amax((1, 2)), (1 - y) * 100 / 255)  # ants are the redder ones
    grey = FolderImages(root=str(folder), num_classes=2, channels=1, image_size=8, validation_fraction=0.5)
    assert grey.probe_set(1)[0].shape == (1, 1, 8, 8)


def test_defects_of_a_folder_are_named(folder):
    facts = {"num_classes": 2, "channels": 3, "image_size": 8}
    with pytest.raises(UserError, match="nowhere/train is missing"):
        FolderImages(root=str(folder / "nowhere"), **facts).setup()
    with pytest.raises(UserError, match=r"data.channels=4"):
        FolderImages(root=str(folder), **{**facts, "channels": 4})
    with pytest.raises(UserError, match=r"data.num_classes=3, .* 2 classes"):
        FolderImages(root=str(folder), **{**facts, "num_classes": 3}).setup()
    (folder / "test" / "dog").mkdir()
    with pytest.raises(UserError, match=r"classes that .* lacks: dog"):
        FolderImages(root=str(folder), **facts).setup()
    (folder / "test" / "dog").rmdir()
    (folder / "train" / "cat" / "9.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"cat/9.png is not a readable image"):
        FolderImages(root=str(folder), **facts).setup()
