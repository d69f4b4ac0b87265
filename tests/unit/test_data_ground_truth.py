"""Data that say which pixels matter: masks, BlockMNIST, planted patches."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from conf_walk import built
from torch import Tensor

from xrobust.data import Arrays, BlockMNIST, Digits, Foreground, ImageDataModule, PlantedPatch
from xrobust.data.block_mnist import null_block, stack_blocks
from xrobust.data.planted_patch import class_patterns, plant
from xrobust.errors import UserError
from xrobust.models import SmallCNN

DIGITS = {"num_classes": 10, "channels": 1, "image_size": 8}


@dataclass(kw_only=True, eq=False)
class Toy(ImageDataModule):
    """Sixty images of three classes; channel 0 is the mask of a training image, channel 1 that of a test image."""

    def load(self) -> Arrays:
        x = torch.randint(0, 256, (60, 3, 4, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
        y = torch.arange(60) % 3
        return Arrays(x, y, x, y, mask_train=x[:, 0] > 127, mask_test=x[:, 1] > 127)


def toy(**changes) -> Toy:
    return Toy(num_classes=3, channels=3, image_size=4, validation_fraction=0.5, **changes)


def blocks(**changes) -> BlockMNIST:
    return BlockMNIST(source=Digits(**DIGITS), **{**DIGITS, "image_size": 16, "validation_fraction": 0.5, **changes})


def patches(**changes) -> PlantedPatch:
    facts = {**DIGITS, "validation_fraction": 0.5, "patch_size": 4, "step": 4, **changes}
    return PlantedPatch(source=Digits(**DIGITS), **facts)


class TestMasks:
    def test_the_sets_own_masks_belong_to_the_probe_images(self):
        data = toy()
        x, _, _ = data.probe_set(20, seed=3)
        assert torch.equal(data.probe_masks(20, seed=3), x[:, 0] > 0.5)
        assert torch.equal(data.probe_masks(20, seed=3), data.probe_masks(30, seed=3)[:20])
        tested, _, _ = data.probe_set(60, split="test")
        assert torch.equal(data.probe_masks(60, split="test"), tested[:, 1] > 0.5)

    def test_a_given_ground_truth_goes_first(self):
        data = toy(ground_truth=Foreground(threshold=0.9))
        assert torch.equal(data.probe_masks(20), data.probe_set(20)[0].amax(1) > 0.9)

    def test_a_set_that_does_not_know_says_so(self):
        assert Digits(**DIGITS).probe_masks(5) is None

    def test_the_foreground_is_bright_in_any_channel(self):
        x = torch.tensor([0.1, 0.2, 0.6, 0.2, 0.2, 0.5]).view(1, 3, 1, 2)
        assert Foreground()(x).tolist() == [[[True, False]]]
        assert Foreground(threshold=0)(torch.tensor([0.0, 1 / 255]).view(1, 1, 1, 2)).tolist() == [[[False, True]]]

    @pytest.mark.parametrize("threshold", [-0.1, 1, float("nan")])
    def test_a_threshold_that_nothing_or_everything_passes_is_refused(self, threshold: float):
        with pytest.raises(UserError, match=r"Foreground.threshold must be at least 0 and below 1"):
            Foreground(threshold)

    @pytest.mark.parametrize("name", ["digits", "mnist5k", "block_mnist", "planted_patch"])
    def test_every_configured_set_that_knows_its_pixels_has_masks_to_search(self, name: str):
        data = built("data", name)
        images, masks = data.probe_set(64)[0], data.probe_masks(64)
        assert masks.shape == (64, *images.shape[-2:]) and masks.dtype == torch.bool
        shares = masks.double().mean((1, 2))
        assert shares.min() > 0 and shares.max() < 0.6


class TestBlockMNIST:
    def test_the_digit_stands_above_or_below_the_null_block_and_is_the_mask(self):
        digits = torch.randint(1, 256, (6, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
        below = torch.tensor([0, 1, 1, 0, 0, 1])
        images, masks = stack_blocks(digits, below, 8)
        halves = images[..., 4:12].unflatten(2, (2, 8))
        for i in range(6):
            assert torch.equal(halves[i, :, below[i]], digits[i])
            assert torch.equal(halves[i, 0, 1 - below[i]], null_block(8))
            assert torch.equal(images[i][:, masks[i]].view(1, 8, 8), digits[i])
        assert not images[..., :4].any() and not images[..., 12:].any()
        assert (masks.sum((1, 2)) == 64).all()

    def test_digits_of_another_size_are_averaged_over_areas(self):
        digits = torch.randint(0, 256, (3, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
        images, masks = stack_blocks(digits, torch.tensor([0, 1, 0]), 4)
        expected = F.avg_pool2d(digits.float(), 2).round().to(torch.uint8)
        assert torch.equal(images[:, 0][masks].view(3, 4, 4), expected[:, 0])

    def test_the_null_block_is_a_framed_diagonal_about_as_bright_as_a_digit(self):
        block = null_block(28)
        assert block.unique().tolist() == [0, 255] and torch.equal(block, block.T)
        assert torch.equal(block.diag()[4:24], torch.full((20,), 255).to(torch.uint8))
        assert not block[:4].any() and not block[24:].any() and block[4, 4:24].all()
        assert 0.1 < block.double().mean() / 255 < 0.3  # an MNIST digit has 0.13

    def test_the_order_says_nothing_about_the_label_and_is_a_function_of_its_seed(self):
        data = blocks()
        x, y = data.load().x_train, data.load().y_train
        below = (data.load().mask_train[:, -1].any(1)).double()
        assert (below.mean() - 0.5).abs() < 0.05
        shares = torch.stack([below[y == k].mean() for k in range(10)])
        assert (shares - 0.5).abs().max() < 0.2
        assert torch.equal(blocks(seed=1, split_seed=1).load().x_train, x)
        assert not torch.equal(blocks(layout_seed=1).load().x_train, x)
        assert torch.equal(data.load().y_train, Digits(**DIGITS).load().y_train)

    def test_two_equal_blocks_need_an_even_height(self):
        with pytest.raises(UserError, match=r"data.image_size=15 must be even"):
            blocks(image_size=15)


class TestPlantedPatch:
    def test_patterns_differ_and_are_equally_bright(self):
        patterns = class_patterns(126, 3, torch.Generator().manual_seed(0))  # all of the 9 choose 4
        assert len(patterns.flatten(1).unique(dim=0)) == 126
        assert (patterns.flatten(1).double().sum(1) == 4 * 255).all()

    def test_a_patch_covers_its_square_in_all_channels_and_nothing_else(self):
        images = torch.randint(0, 256, (5, 3, 6, 7), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
        patch = class_patterns(5, 2, torch.Generator().manual_seed(1))
        corners = torch.tensor([[0, 0], [4, 5], [0, 5], [4, 0], [2, 3]])
        planted, mask = plant(images, patch, corners)
        for i, (top, left) in enumerate(corners.tolist()):
            expected = images[i].clone()
            expected[:, top : top + 2, left : left + 2] = patch[i]
            assert torch.equal(planted[i], expected)
            assert mask[i].sum() == 4 and mask[i, top : top + 2, left : left + 2].all()

    def test_the_patch_is_the_label_and_the_images_own_class_says_nothing(self):
        data = patches()
        arrays, own = data.load(), Digits(**DIGITS).load().y_train
        shown = arrays.x_train[:, 0][arrays.mask_train].view(-1, 16)
        patterns = shown.unique(dim=0)
        assert len(patterns) == 10
        told = (shown[:, None] == patterns).all(2).long().argmax(1)
        together = F.one_hot(told * 10 + arrays.y_train, 100).sum(0).view(10, 10)
        assert ((together > 0).sum(0) == 1).all() and ((together > 0).sum(1) == 1).all()
        assert arrays.y_train.bincount().tolist() == [144] * 8 + [143] * 2
        assert ((own == arrays.y_train).double().mean() - 0.1).abs() < 0.03
        corners = arrays.mask_train.flatten(1).long().argmax(1)
        assert corners.unique().tolist() == [0, 4, 32, 36]

    def test_it_is_a_function_of_its_seed(self):
        assert torch.equal(patches(seed=1, split_seed=1).load().x_train, patches().load().x_train)
        assert not torch.equal(patches(patch_seed=1).load().y_train, patches().load().y_train)

    def test_the_same_patterns_are_in_training_and_in_test(self):
        data = patches(patch_size=8)
        x, y = data.load().x_train, data.load().y_train
        test, test_y = data.load().x_test, data.load().y_test
        first = torch.stack([x[y == k][0] for k in range(10)])
        assert torch.equal(test, first[test_y])

    def test_a_network_reads_the_patch_and_is_at_chance_without_it(self):
        data = patches(validation_fraction=0.3)
        model = SmallCNN(num_classes=10, in_channels=1, image_size=8)
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        loader = data.train_dataloader()
        for epoch in range(15):
            loader.set_epoch(epoch)
            for x, y in loader:
                optimizer.zero_grad()
                F.cross_entropy(model(x), y).backward()
                optimizer.step()
        x, y, _ = data.probe_set(400)
        mask = data.probe_masks(400)[:, None]

        def accuracy(images: Tensor) -> float:
            with torch.no_grad():
                return (model(images).argmax(1) == y).double().mean().item()

        assert accuracy(x) > 0.95
        assert accuracy(x * mask) > 0.9, "the patch alone"
        assert accuracy(x.masked_fill(mask, 0)) < 0.1 + 4 * (0.1 * 0.9 / 400) ** 0.5, "everything but the patch"

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"patch_size": 9}, "data.patch_size=9 must be at most data.image_size=8"),
            ({"patch_size": 1}, r"data.patch_size must be .* at least 2, got 1"),
            ({"patch_size": 2}, "data.patch_size=2 has too few patterns for 10 classes"),
            ({"step": 0}, r"data.step must be .* at least 1, got 0"),
            ({"patch_seed": -1}, r"data.patch_seed must be .* at least 0, got -1"),
        ],
    )
    def test_values_out_of_range_are_refused(self, wrong, message):
        with pytest.raises(UserError, match=message):
            patches(**wrong)


def test_any_set_can_be_the_source():
    data = built("data", "planted_patch", "data@data.source=digits", "data.patch_size=3", "data.step=1")
    assert data.summary()["image_size"] == 8 and data.probe_masks(5).sum((1, 2)).tolist() == [9] * 5
    halved = built("data", "block_mnist", "data@data.source=digits", "data.image_size=8")
    assert halved.probe_masks(5).sum((1, 2)).tolist() == [16] * 5
