"""One process of a distributed test: validates a fixed model, and says what it measured and drew.

Started by torchrun, or alone; writes `<folder>/rank_<r>_of_<n>.json`.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import pytorch_lightning as pl
import torch

CONTRACTS = Path(__file__).parents[1] / "contracts"
sys.path[:0] = [str(CONTRACTS.parents[1]), str(CONTRACTS)]

from conf_walk import choices, composed  # noqa: E402

from xrobust.config.build import build, build_all  # noqa: E402
from xrobust.randomness import uniform_like  # noqa: E402
from xrobust.schedules import Constant  # noqa: E402

warnings.simplefilter("ignore")
torch.set_num_threads(1)


class FirstNoise(pl.Callback):
    """The first random number that training draws in each process."""

    value = 0.0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:  # type: ignore[no-untyped-def]
        if batch_idx == 0:
            self.value = float(uniform_like(torch.empty(1), pl_module.generator))


def main(folder: Path, processes: int) -> None:
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
        f"run_dir={folder}",
    )
    pl.seed_everything(0, verbose=False)
    model = build(config["model"], "model")
    defense = build(
        config["defense"],
        "defense",
        model=model,
        optimizer=torch.optim.SGD,
        schedule=Constant(value=0.0),
        seed=0,
    )
    noise = FirstNoise()
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=processes,
        strategy="ddp" if processes > 1 else "auto",
        max_epochs=1,
        limit_train_batches=1,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*build_all(config["callbacks"], "callbacks").values(), noise],
    )
    # A learning rate of zero: the model stays what the seed made it, so one process and two validate the same.
    trainer.fit(defense, datamodule=build(config["data"], "data"))
    measured = {name: value.item() for name, value in trainer.callback_metrics.items()}
    report = {"metrics": measured, "noise": noise.value}
    (folder / f"rank_{trainer.global_rank}_of_{processes}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
