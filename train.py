"""Train a robust image classifier and watch what robustness does to its explanations.

python train.py defense=pgd_at threat=linf_0_3 data=mnist model=madry_cnn
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from xrobust.config import cli, schema

if TYPE_CHECKING:
    from omegaconf import DictConfig

CONF = Path(__file__).resolve().parent / "conf"


def train(cfg: DictConfig) -> float | None:
    """Check, build, seed, fit, test, export, evaluate, report.

    Returns:
        The validation score of the best epoch, which a sweep optimises; none if no epoch was chosen.
    """
    # Heavy imports come here, so that `--cfg job`, `--help` and shell completion answer at once.
    import pytorch_lightning as pl
    import torch
    from pytorch_lightning.utilities.seed import isolate_rng

    from xrobust.command import require_images
    from xrobust.config.after_fit import after_fit
    from xrobust.config.build import build, build_all, plain
    from xrobust.config.check import check_run
    from xrobust.config.run_folder import open_run_folder, resumed_checkpoint, run_title
    from xrobust.defenses.preflight import one_sentence, require_fit, require_optimizer, require_steps
    from xrobust.defenses.regularization import Regularization
    from xrobust.errors import within
    from xrobust.evaluate import checked, run_evaluation
    from xrobust.export.bundle import save_bundle
    from xrobust.export.card import data_name
    from xrobust.export.loading import read_config
    from xrobust.report import print_summary, read_run, write_report

    config = plain(cfg)
    check_run(config)
    require_steps(config["trainer"])
    resumed_checkpoint(config)
    for part in ("threat", "train_attack", "val_attack", "test_attack"):  # first, for the places in messages
        build(config[part], part)
    with within("evaluate"):
        final = checked(after_fit(cfg, CONF))
    with one_sentence("callbacks"):
        callbacks = build_all(config["callbacks"], "callbacks")
    loggers = list(build_all(config["logger"], "logger").values())
    with one_sentence("trainer"):
        trainer = build(config["trainer"], "trainer", callbacks=list(callbacks.values()), logger=loggers)
    optimization = build(config["optim"], "optim")
    require_optimizer(optimization)
    datamodule = build(config["data"], "data")
    pl.seed_everything(config["seed"], workers=True, verbose=False)
    model = build(config["model"], "model")
    if config["channels_last"]:
        model = model.to(memory_format=torch.channels_last)
    descent = {"optimizer": optimization, "schedule": optimization.schedule}
    module = build(config["defense"], "defense", model=model, seed=config["seed"], **descent)
    module.config = config
    module.regularization = Regularization(module, build_all(config["regularizers"], "regularizers"))
    require_fit(model, datamodule)
    with isolate_rng():  # whatever loading draws, the run's random numbers are the same
        datamodule.setup()
    for evaluation in final:
        require_images("evaluate.limit", evaluation["limit"], datamodule.summary()["test"])
    facts = {"name": data_name(config), **datamodule.summary(), "sha256": datamodule.version()}
    checkpoint = open_run_folder(config)

    try:
        for logger in loggers:
            logger.begin()
            logger.log_hyperparams(config)
            logger.log_data(facts)
        trainer.fit(module, datamodule=datamodule, ckpt_path=checkpoint, weights_only=True)
        kept = [c for c in trainer.checkpoint_callbacks if isinstance(c, pl.callbacks.ModelCheckpoint)]
        best, score = (kept[0].best_model_path or None, kept[0].best_model_score) if kept else (None, None)
        trainer.test(module, datamodule=datamodule, ckpt_path=best, weights_only=True, verbose=False)
        if trainer.is_global_zero:
            folder = Path(config["run_dir"])
            measured = {"results": module.results, "explanation_card": module.explanation_card}
            about = {"class_names": datamodule.class_names, "training": config, "data": facts, **measured}
            bundle = save_bundle(folder / "bundle", model, config["model"], **about)
            summary = run_evaluation(final) if final else None
            run = read_run(folder, run_title(config), read_config(bundle)["results"])
            for logger in loggers:
                logger.log_results(run, bundle, summary)
            write_report(run)
            print_summary(run)
        return None if score is None else float(score)
    finally:
        for logger in loggers:
            logger.close()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()  # the next job of a multirun has processes of its own


if __name__ == "__main__":
    schema.register()
    cli.run(train, CONF, "train")
