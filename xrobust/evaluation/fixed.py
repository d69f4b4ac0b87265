"""The conditions under which numbers can be compared."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from xrobust.frame import without_tf32


@contextmanager
def fixed_conditions(device: torch.device, seed: int) -> Iterator[None]:
    """Float32 without TF32, deterministic convolutions, and the global random state set; afterwards all is as before.

    The random state is for models that draw random numbers themselves; attacks have their own streams.
    """
    cuda = device.type == "cuda"
    with (
        torch.random.fork_rng([device] if cuda else []),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True),
        without_tf32(),
    ):
        torch.default_generator.manual_seed(seed)
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
