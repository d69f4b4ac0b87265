"""One process that trains the special methods for a few batches, and says where their weights ended.

Started by torchrun, or alone; writes `<folder>/rank_<r>_of_<n>.json`: the weights of each method. The batches hold the
same images for every number of processes.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import pytorch_lightning as pl
import torch
from sklearn.datasets import load_digits
from torch import nn

sys.path[:0] = [str(Path(__file__).parents[2])]

from xrobust.attacks import FGSM, PGD  # noqa: E402
from xrobust.attacks.near_start_pgd import NearStartPGD  # noqa: E402
from xrobust.data.loader import TrainingLoader  # noqa: E402
from xrobust.defenses import (  # noqa: E402
    HAT,
    MART,
    NFGSM,
    TRADES,
    FreeAdversarialTraining,
    GradAlign,
    MultiThreatTraining,
    RobustClassifier,
)
from xrobust.schedules import Constant  # noqa: E402
from xrobust.threat import ThreatModel  # noqa: E402

warnings.simplefilter("ignore")
torch.set_num_threads(1)

LINF, L2 = ThreatModel("linf", "0.1"), ThreatModel("l2", "0.5")
PLAIN = PGD(threat=LINF, steps=2, random_start=False)
KL = NearStartPGD(threat=LINF, steps=2, loss="kl")
BATCH, BATCHES = 32, 3


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.Softplus(), nn.Linear(12, 10))


# The first two draw no random numbers, so that any number of processes must give the same weights.
METHODS = {
    "free_at": (FreeAdversarialTraining, {"threat": LINF, "replays": 3}),
    "mart": (MART, {"attack": PLAIN}),
    "grad_align": (GradAlign, {"attack": FGSM(threat=LINF), "weight": 1.0}),
    "n_fgsm": (NFGSM, {"attack": FGSM(threat=LINF)}),
    "trades": (TRADES, {"attack": KL}),
    "hat": (HAT, {"attack": KL, "helper": network()}),
    "multi_threat": (
        MultiThreatTraining,
        {"attacks": {"linf": PLAIN, "l2": PGD(threat=L2, steps=2)}, "combine": "random"},
    ),
}


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


def main(folder: Path, processes: int) -> None:
    weights, rank = {}, 0
    for name, (kind, arguments) in METHODS.items():
        sgd = lambda parameters: torch.optim.SGD(parameters, lr=0.1)  # noqa: E731
        method = kind(model=network(), optimizer=sgd, schedule=Constant(), **arguments)
        rank = train(method, processes)
        weights[name] = torch.cat([p.detach().flatten() for p in method.model.parameters()]).tolist()
    weights["untrained"] = torch.cat([p.detach().flatten() for p in network().parameters()]).tolist()
    (folder / f"rank_{rank}_of_{processes}.json").write_text(json.dumps(weights))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
