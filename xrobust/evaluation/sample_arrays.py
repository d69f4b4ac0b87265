"""Arrays that say one thing each of the same samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class SampleArrays:
    """What is known of N samples; a subclass adds arrays of N entries as fields.

    Attributes:
        index: positions in the data set, (N,).
    """

    index: NDArray

    def arrays(self) -> dict[str, NDArray]:
        """All arrays by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """What is known of several batches, in the order of the data set."""
        whole = {name: np.concatenate([part.arrays()[name] for part in parts]) for name in parts[0].arrays()}
        order = np.argsort(whole["index"])
        return cls(**{name: values[order] for name, values in whole.items()})
