"""Weights & Biases: offline unless an account is configured."""

from __future__ import annotations

import json
import netrc
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import wandb
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from xrobust.errors import one_of
from xrobust.export.explanation_table import card_columns, card_rows
from xrobust.export.loading import read_config
from xrobust.export.result import RESULT_COLUMNS, result_cells
from xrobust.report import Run

MODES = ("auto", "online", "offline", "disabled")
BEST_IS_HIGHEST = ("val/clean_accuracy", "val/robust_accuracy", "val/certified_accuracy")


class RunLogger(WandbLogger):
    """Lightning's W&B logger: the run summary keeps the best accuracies, bundles become artifacts.

    Args:
        save_dir: the run folder; W&B's files lie in its `wandb` folder, and the run's id in `wandb_id`, so that a
            resumed run goes on under the same id.
        project: the W&B project.
        mode: "online", "offline" (`wandb sync` uploads it later), "disabled", or "auto": online when an API key is
            configured, offline otherwise. The environment variable WANDB_MODE wins over "auto".
        group: the W&B group, for runs that belong together.
        name: the run's name.
        tags: labels for filtering.
    """

    def __init__(
        self,
        *,
        save_dir: str,
        project: str = "xrobust",
        mode: str = "auto",
        group: str | None = None,
        name: str | None = None,
        tags: list[str] | None = None,
    ):
        if mode not in MODES:
            raise one_of("logger.wandb.mode", mode, MODES)
        if mode == "auto":
            mode = os.environ.get("WANDB_MODE") or ("online" if has_api_key() else "offline")
        if mode != "online":
            os.environ.setdefault("WANDB_SILENT", "true")
        settings = wandb.Settings(console="off")
        super().__init__(
            save_dir=save_dir,
            project=project,
            mode=mode,
            group=group,
            name=name,
            tags=tags,
            settings=settings,
        )
        del self._wandb_init["anonymous"]  # Lightning passes it, and W&B warns that it means nothing any more

    def begin(self) -> None:
        """Open the run, before training starts."""
        if rank_zero_only.rank != 0:  # type: ignore[attr-defined]
            return
        file = Path(self._wandb_init["dir"]) / "wandb_id"
        if not file.exists():
            file.write_text(uuid.uuid4().hex[:12])
        self._wandb_init["id"] = file.read_text()
        if self._wandb_init["mode"] != "online":
            self._wandb_init["resume"] = None  # resuming needs the server; the shared id joins the parts on `sync`
        for quantity in BEST_IS_HIGHEST:
            self.experiment.define_metric(quantity, summary="max", step_metric="trainer/global_step")

    @rank_zero_only
    def log_data(self, data: Mapping[str, Any]) -> None:
        """Note name, sizes and version of the data set; online it is the artifact that the run takes.

        Offline W&B knows no artifact that a run takes: there the version is in the configuration and, as always, with
        the bundle.
        """
        self.experiment.config.update({"data_version": dict(data)}, allow_val_change=True)
        if self._wandb_init["mode"] == "online":
            artifact = wandb.Artifact(f"data-{data['name']}".lower(), type="dataset", metadata=dict(data))
            with artifact.new_file("version.json") as file:
                json.dump(dict(data), file, indent=2)
            self.experiment.use_artifact(artifact)

    @rank_zero_only
    def log_results(self, run: Run, bundle: Path, evaluation: Mapping[str, Any] | None) -> None:
        """What a finished run keeps: the bundle as a model artifact, charts of robust accuracy against each explanation
        metric over the epochs, the explanation card, and the summary of the final evaluation, if there was one."""
        described = read_config(bundle)
        metadata = {name: described[name] for name in ("data", "threat", "results", "sha256")}
        artifact = wandb.Artifact(f"bundle-{self.experiment.id}", type="model", metadata=metadata)
        artifact.add_dir(str(bundle))
        self.experiment.log_artifact(artifact)
        charts = {f"robustness_and/{name}": self._chart(run, name) for name in run.directions}
        self.experiment.log(charts)
        if run.card is not None:
            self.experiment.log({"explanation_card": card_table(run.card)})
        if evaluation is not None:
            self._log_evaluation(evaluation)

    def _chart(self, run: Run, name: str) -> Any:
        """One dot an epoch in which the metric was measured."""
        wanted = ("val/robust_accuracy", name, "epoch")
        rows = [[row[quantity] for quantity in wanted] for row in run.history if row.keys() >= set(wanted)]
        metric = name.removeprefix("explain/")
        table = wandb.Table(["robust accuracy", metric, "epoch"], rows)
        return wandb.plot.scatter(table, "robust accuracy", metric, title=f"{metric} and robust accuracy")

    def _log_evaluation(self, summary: Mapping[str, Any]) -> None:
        """Results and warnings as tables; accuracies and the number of warnings in the run's summary."""
        results = wandb.Table(list(RESULT_COLUMNS), [result_cells(result) for result in summary["results"]])
        warnings = [[w["check"], w["measured"], w["advice"], w["reference"]] for w in summary["warnings"]]
        table = wandb.Table(["check", "measured", "advice", "reference"], warnings)
        self.experiment.log({"evaluation/results": results, "evaluation/warnings": table})
        values = {_summary_key(result): result["value"] for result in summary["results"]}
        self.experiment.summary.update({**values, "evaluation/warning_count": len(warnings)})

    def close(self) -> None:
        """Finish the run, so that the next job of the process starts its own."""
        if self._experiment is not None:
            self._experiment.finish()


def card_table(card: Mapping[str, Any]) -> wandb.Table:
    """An explanation card as a table, one row a measurement."""
    rows = [[point["question"], *row] for point in card["points"] for row in card_rows(point)]
    return wandb.Table(["question", *card_columns(card)], rows)


def _summary_key(result: Mapping[str, Any]) -> str:
    """As in "evaluation/robust_accuracy/linf_0.2": an evaluation may hold several threat models."""
    quantity = result["quantity"].split("/")[1]
    threat = result["protocol"].get("attack", {}).get("threat")
    return f"evaluation/{quantity}" + (f"/{threat['norm']}_{threat['eps']}" if threat else "")


def has_api_key() -> bool:
    """Whether W&B would find credentials: in the environment, its settings, or the netrc file."""
    settings = wandb.Settings()
    settings.update_from_env_vars(dict(os.environ))
    if settings.api_key or settings.identity_token_file:
        return True
    file = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    try:
        return (
            file.is_file() and netrc.netrc(file).authenticators(urlparse(settings.base_url).hostname or "") is not None
        )
    except netrc.NetrcParseError:
        return False
