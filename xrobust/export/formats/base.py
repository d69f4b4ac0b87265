"""What every format says of itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from xrobust.errors import UserError
from xrobust.export.finished import FinishedModel

Function = Callable[[Tensor], Tensor]


class Format(ABC):
    """A way to write a model, and to read it back with the tools that its users have.

    A subclass is a frozen, keyword-only dataclass of its options.

    Attributes:
        filename: of the file or folder that it writes.
        packages: what it is written and read with, as pip names them.
        differentiable: logits have gradients with respect to the images after reading; the export verifies it.
    """

    filename: ClassVar[str]
    packages: ClassVar[tuple[str, ...]]
    differentiable: ClassVar[bool] = True

    @abstractmethod
    def write(self, finished: FinishedModel, path: Path) -> None:
        """Write the model to a path where nothing is yet.

        Raises:
            UserError: if the format cannot hold this model.
        """

    @abstractmethod
    def read(self, path: Path) -> Function:
        """Images (N, C, H, W) in [0, 1] → logits (N, K), from what was written and nothing else."""

    def versions(self) -> dict[str, str]:
        """The installed versions of its packages.

        Raises:
            UserError: if one is missing.
        """
        found = {}
        for package in self.packages:
            try:
                found[package] = version(package)
            except PackageNotFoundError:
                raise UserError(f"{package} is missing: pip install {' '.join(self.packages)}") from None
        return found
