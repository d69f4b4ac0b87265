"""A method's loss computed once more than training asks for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from xrobust.defenses.batch_norm import frozen_statistics

if TYPE_CHECKING:
    from xrobust.defenses.base import RobustClassifier


@contextmanager
def rehearsal(defense: RobustClassifier, *, keep_statistics: bool = True) -> Iterator[None]:
    """What happens inside draws random numbers that will be drawn again afterwards.

    Args:
        defense: whose `generator` is put back, as is the global random state that dropout draws from.
        keep_statistics: batch norm's running statistics do not move, either.
    """
    state = defense.generator.get_state()
    devices = [defense.device] if defense.device.type == "cuda" else []
    with frozen_statistics(defense.model, frozen=keep_statistics), torch.random.fork_rng(devices):
        try:
            yield
        finally:
            defense.generator.set_state(state)
