"""The 8 × 8 digits of scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xrobust.data.arrays import Arrays
from xrobust.data.base import ImageDataModule
from xrobust.data.packaged import packaged_table, split_off_test


@dataclass(kw_only=True, eq=False)
class Digits(ImageDataModule):
    """The 1,797 images (8 × 8) inside scikit-learn, values 0 ... 16 scaled to 0 ... 255; 20% are for test."""

    def load(self) -> Arrays:
        table = packaged_table("sklearn", "scikit-learn", "datasets/data/digits.csv.gz")
        images = np.rint(table[:, :-1] * 255 / 16).reshape(-1, 8, 8).astype(np.uint8)
        return split_off_test("Digits", images, table[:, -1].astype(np.int64), fraction=0.2)
