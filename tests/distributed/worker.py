"""One process of the distributed tests: measures a fixed model, trains every method of `<folder>/methods.json`.

Started by torchrun, or alone; writes `<folder>/rank_<r>_of_<n>.json`: what it measured, the first random number of
its training, and the weights that each method ended with.

    python worker.py <folder> <number of processes> [<methods; none: all>]
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

CONTRACTS = Path(__file__).parents[1] / "contracts"
sys.path[:0] = [str(CONTRACTS.parents[1]), str(CONTRACTS)]

from conf_walk import choices, composed  # noqa: E402

from xrobust.config.build import build, build_all  # noqa: E402
from xrobust.data.loader import TrainingLoader  # noqa: E402
from xrobust.models import SmallCNN  # noqa: E402
from xrobust.randomness import uniform_like  # noqa: E402
from xrobust.schedules import Constant  # noqa: E402

warnings.simplefilter("ignore")
torch.set_num_threads(1)

BATCH, BATCHES = 16, 2


class FirstNoise(pl.Callback):
    """The first random number that training draws in each process."""

    value = 0.0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:  # type: ignore[no-untyped-def]
        if batch_idx == 0:
            self.value = float(uniform_like(torch.empty(1), pl_module.generator))


def quiet_trainer(processes: int, **options: object) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu",
        devices=processes,
        strategy="ddp" if processes > 1 else "auto",
        max_epochs=1,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,  # type: ignore[arg-type]
    )


def measure(processes: int) -> dict[str, object]:
    """All metrics of a model that stays what the seed made it, because its learning rate is zero."""
    config = composed(
        "data=digits",
        "data.eval_batch_size=37",
        "threat.eps=0.1",
        "attack@val_attack=pgd_10_worst",
        f"metrics=[{','.join(choices('metrics'))}]",
        "attribution=[gradient,smooth_grad]",
        "callbacks=[robust_accuracy,explanation_quality]",
        "attribution.smooth_grad.samples=5",
        "callbacks.explanation_quality.images=21",
        "run_dir=.",
    )
    pl.seed_everything(0, verbose=False)
    model = build(config["model"], "model")
    still = {"optimizer": torch.optim.SGD, "schedule": Constant(value=0.0), "seed": 0}
    noise = FirstNoise()
    callbacks = [*build_all(config["callbacks"], "callbacks").values(), noise]
    trainer = quiet_trainer(processes, limit_train_batches=1, num_sanity_val_steps=0, callbacks=callbacks)
    trainer.fit(build(config["defense"], "defense", model=model, **still), datamodule=build(config["data"], "data"))
    measured = {name: value.item() for name, value in trainer.callback_metrics.items()}
    return {"rank": trainer.global_rank, "metrics": measured, "noise": noise.value}


def train(config: dict[str, object], processes: int) -> list[float]:
    """The weights after a few batches, which hold the same images for every number of processes."""
    torch.manual_seed(0)
    model = SmallCNN(num_classes=10, in_channels=1, image_size=8)
    before = flat(model)
    method = build(config, "defense", model=model, optimizer=sgd, schedule=Constant(), seed=0)
    trainer = quiet_trainer(processes, gradient_clip_val=1.0)
    digits = load_digits()
    images = torch.from_numpy(digits.images[: BATCH * BATCHES] * 15).to(torch.uint8).unsqueeze(1)
    labels = torch.from_numpy(digits.target[: BATCH * BATCHES]).long()
    options = {"batch_size": BATCH // processes, "rank": trainer.global_rank, "world_size": processes}
    trainer.fit(method, TrainingLoader(images, labels, **options))
    after = flat(method.model)
    assert not torch.equal(after, before), config
    return after.tolist()


def sgd(parameters):  # type: ignore[no-untyped-def]
    return torch.optim.SGD(parameters, lr=0.1)


def flat(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def main(folder: Path, processes: int, *names: str) -> None:
    os.chdir(folder)
    methods = json.loads(Path("methods.json").read_text())
    report = measure(processes)
    report["weights"] = {name: train(methods[name], processes) for name in names or methods}
    Path(f"rank_{report['rank']}_of_{processes}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
