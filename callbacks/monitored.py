"""A quantity that a callback waits for, and that nobody logs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytorch_lightning as pl
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from xrobust.errors import UserError


@contextmanager
def monitored(place: str, monitor: str | None, trainer: pl.Trainer) -> Iterator[None]:
    """Where Lightning misses the quantity, say what there is.

    Raises:
        UserError: naming the place, the quantity and what is logged.
    """
    try:
        yield
    except (MisconfigurationException, RuntimeError) as error:
        if monitor in trainer.callback_metrics:
            raise
        logged = ", ".join(sorted(trainer.callback_metrics))
        raise UserError(f"{place}.monitor={monitor} is not logged by this run; allowed: {logged}") from error
