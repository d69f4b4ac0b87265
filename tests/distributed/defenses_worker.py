"""One process that trains methods of `<folder>/methods.json` for a few batches, and says where their weights ended.

Started by torchrun, or alone, with the names of the methods, or none for all; writes `<folder>/rank_<r>_of_<n>.json`,
the weights of each. The batches hold the same images for every number of processes.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path

import pytorch_lightning as pl
import torch
from sklearn.datasets import load_digits
from torch import nn

sys.path[:0] = [str(Path(__file__).parents[2])]

from xrobust.config.build import build  # noqa: E402
from xrobust.data.loader import TrainingLoader  # noqa: E402
from xrobust.defenses import RobustClassifier  # noqa: E402
from xrobust.models import SmallCNN  # noqa: E402
from xrobust.schedules import Constant  # noqa: E402

warnings.simplefilter("ignore")
torch.set_num_threads(1)

BATCH, BATCHES = 16, 2


def network() -> nn.Module:
    torch.manual_seed(0)
    return SmallCNN(num_classes=10, in_channels=1, image_size=8)


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1)


def train(method: RobustClassifier, processes: int) -> int:
    """Train, and say which process this is."""
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=processes,
        strategy="ddp" if processes > 1 else "auto",
        max_epochs=1,
        use_distributed_sampler=False,
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    digits = load_digits()
    images = torch.from_numpy(digits.images[: BATCH * BATCHES] * 15).to(torch.uint8).unsqueeze(1)
    labels = torch.from_numpy(digits.target[: BATCH * BATCHES]).long()
    options = {"batch_size": BATCH // processes, "rank": trainer.global_rank, "world_size": processes}
    trainer.fit(method, TrainingLoader(images, labels, **options))
    return trainer.global_rank


def main(folder: Path, processes: int, *names: str) -> None:
    os.chdir(folder)
    weights, rank = {}, 0
    for name, config in json.loads(Path("methods.json").read_text()).items():
        if not names or name in names:
            method = build(config, "defense", model=network(), optimizer=sgd, schedule=Constant(), seed=0)
            before = flat(method.model)
            rank = train(method, processes)
            assert not torch.equal(flat(method.model), before), name
            weights[name] = flat(method.model).tolist()
    Path(f"rank_{rank}_of_{processes}.json").write_text(json.dumps(weights))


def flat(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
