"""Certified accuracy of a run and of a data set: callback, resumable store, tables, agreement with an attack."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from callbacks import CertifiedAccuracy
from xrobust.attacks import PGD
from xrobust.certification import CROWNIBP, IBP, Cascade, Certificate, Certifier, Falsifier
from xrobust.data import Digits
from xrobust.defenses import StandardTraining
from xrobust.errors import UserError
from xrobust.evaluation import Ladder, evaluate
from xrobust.evaluation.certification import (
    Verdicts,
    certified_accuracy,
    certify,
    counter_examples,
    require_order,
    verdict_summary,
    verdicts_csv,
)
from xrobust.export.result import describe_protocol
from xrobust.models import SmallCNN
from xrobust.schedules import Constant
from xrobust.threat import ThreatModel

THREAT = ThreatModel("linf", "0.02")
ATTACK = PGD(threat=THREAT, steps=5, keep="worst")
CASCADE = Cascade(
    threat=THREAT,
    certifiers={
        "ibp": IBP(threat=THREAT),
        "crown_ibp": CROWNIBP(threat=THREAT),
        "pgd": Falsifier(threat=THREAT, attack=ATTACK),
    },
)


@pytest.fixture
def samples(digits: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return digits[0][:40], digits[1][:40]


def same(first: Verdicts, second: Verdicts) -> None:
    for name, value in first.arrays().items():
        if name != "seconds":
            np.testing.assert_allclose(value, second.arrays()[name], rtol=1e-6, atol=1e-9)


def test_verdicts_are_kept_batch_by_batch_and_gone_on_with(
    digits_model: nn.Module, samples: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    x, y = samples
    whole = certify(digits_model, x, y, CASCADE, batch_size=40)
    first = certify(digits_model, x, y, CASCADE, batch_size=15, folder=tmp_path)
    files = sorted((tmp_path / "batches").glob("*.npz"))
    assert [file.name for file in files] == ["00000000.npz", "00000015.npz", "00000030.npz"]
    files[1].unlink()
    told: list[int] = []
    again = certify(digits_model, x, y, CASCADE, batch_size=4, folder=tmp_path, watch=lambda b: told.append(b.samples))
    assert told == [15, 10, 4, 4, 4, 3]
    same(whole, first)
    same(whole, again)
    with pytest.raises(UserError, match=r"differs in certifier\.certifiers"):
        other = Cascade(threat=THREAT, certifiers={"ibp": IBP(threat=THREAT)})
        certify(digits_model, x, y, other, folder=tmp_path)


def test_tables_say_what_became_of_each_sample(digits_model: nn.Module, samples: tuple[Tensor, Tensor]) -> None:
    x, y = samples
    verdicts = certify(digits_model, x, y, CASCADE)
    evaluation = evaluate(digits_model, x, y, [Ladder(ATTACK)])
    require_order(verdicts, evaluation)
    rows = list(csv.DictReader(verdicts_csv(verdicts, CASCADE, evaluation).splitlines()))
    assert len(rows) == 40 and {row["status"] for row in rows} >= {"certified", "falsified"}
    for row in rows:
        falsified = row["status"] == "falsified"
        assert bool(row["counter_example_prediction"]) == bool(row["distance"]) == falsified
        if falsified:
            assert row["counter_example_prediction"] != row["label"] and float(row["distance"]) <= 0.0200001
        if row["status"] == "certified":
            assert float(row["margin"]) > 0 and row["stands_attack"] == "1" and row["certifier"] != "pgd"
    summary = verdict_summary(verdicts, CASCADE)
    assert sum(summary["statuses"].values()) == 40 and summary["bounds_not_finite"] == 0
    assert summary["decided_by"]["ibp"]["certified"] + summary["decided_by"]["crown_ibp"]["certified"] == int(
        verdicts.certified.sum()
    )
    wrong = verdicts.clean_prediction != verdicts.label
    assert wrong.any() and summary["decided_by"]["clean"]["falsified"] == wrong.sum()
    assert summary["decided_by"]["ibp"]["falsified"] == 0, "bounds falsify nothing"
    assert [row["certifier"] == "clean" for row in rows] == wrong.tolist()
    result = certified_accuracy(verdicts, CASCADE, "test", 0)
    assert result.correct == int(verdicts.certified.sum()) and result.total == 40
    assert describe_protocol(result.protocol) == "Cascade (linf ε=0.02, float64, ibp → crown_ibp → pgd), seed 0"
    assert result.protocol["certifier"]["certifiers"]["pgd"]["attack"]["steps"] == 5
    with np.load(io.BytesIO(counter_examples(verdicts))) as kept:
        assert len(kept["images"]) == summary["statuses"]["falsified"]
        images = torch.from_numpy(kept["images"])
        assert (digits_model(images).argmax(1) != y[torch.from_numpy(kept["index"])]).all()


@dataclass(frozen=True, kw_only=True)
class Watcher(Certifier):
    """Certifies nothing, and looks at the precision of GPUs."""

    def run(self, problem: Any) -> Certificate:
        assert not torch.backends.cudnn.allow_tf32 and torch.backends.cuda.matmul.fp32_precision == "ieee"
        return Certificate.blank(problem.x)


def test_bounds_are_computed_without_tf32(digits_model: nn.Module, samples: tuple[Tensor, Tensor]) -> None:
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = True
    try:
        assert Watcher(threat=THREAT).certify(digits_model, *samples).open.any()
        assert torch.backends.cudnn.allow_tf32
    finally:
        torch.backends.cudnn.allow_tf32 = before


@dataclass(frozen=True, kw_only=True)
class Optimist(Certifier):
    """Certifies everything."""

    def certify(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: Any = None) -> Certificate:
        return Certificate.of_margins(x, torch.ones(len(x)))

    def run(self, problem: Any) -> Certificate:
        raise AssertionError


def test_a_certificate_that_an_attack_refutes_is_an_error(
    digits_model: nn.Module, samples: tuple[Tensor, Tensor]
) -> None:
    x, y = samples
    threat = ThreatModel("linf", "0.3")
    evaluation = evaluate(digits_model, x, y, [Ladder(PGD(threat=threat, steps=5, keep="worst"))])
    with pytest.raises(RuntimeError, match="certified, but broken by an attack"):
        require_order(certify(digits_model, x, y, Optimist(threat=threat)), evaluation)


@pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated")
def test_the_callback_logs_validation_and_test_with_their_protocol() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SmallCNN(num_classes=10, in_channels=1, image_size=8, width=4, hidden=20)
    module = StandardTraining(model=model, optimizer=lambda p: torch.optim.Adam(p, 1e-2), schedule=Constant())
    callback = CertifiedAccuracy(
        CROWNIBP(threat=THREAT.with_eps("0.005")), val_images=50, test_images=None, every_n_epochs=2
    )
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=3,
        num_sanity_val_steps=0,
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data = Digits(num_classes=10, channels=1, image_size=8)
    trainer.fit(module, datamodule=data)
    certified = float(trainer.callback_metrics["val/certified_accuracy"])
    assert 0.1 < certified < 1 and round(certified * 50) == pytest.approx(certified * 50)
    trainer.test(module, datamodule=data, verbose=False)
    (result,) = module.results
    assert result.quantity == "test/certified_accuracy" and result.total == 359
    assert 0 < result.value <= float(trainer.callback_metrics["test/clean_accuracy"])
    assert result.protocol["certifier"]["name"] == "CROWNIBP"


@pytest.mark.parametrize(
    ("options", "words"),
    [({"val_images": 0}, "val_images"), ({"every_n_epochs": 0}, "every_n_epochs")],
)
def test_bad_values_of_the_callback_are_refused(options: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        CertifiedAccuracy(IBP(threat=THREAT), **options)
