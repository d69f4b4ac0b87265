"""What an evaluation leaves behind: the table of samples, the summary, pictures, and the bundle's card."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import xrobust
from xrobust.attacks import APGD, FGSM, PGD, WorstOf
from xrobust.errors import UserError
from xrobust.evaluation import Evaluation, Ladder, accuracies, evaluate
from xrobust.evaluation.masking import Check, Finding, ProbabilityOutputs, RandomOutputs, check_evaluation
from xrobust.evaluation.output import write_outputs
from xrobust.export.bundle import add_results, save_bundle
from xrobust.export.loading import read_config
from xrobust.export.weights import load_weights
from xrobust.models import SmallCNN
from xrobust.models.wrapped import WrappedModel
from xrobust.report.progress import EvaluationProgress
from xrobust.threat import ThreatModel

LINF, L2 = ThreatModel("linf", "0.1"), ThreatModel("l2", "0.6")
ARCHITECTURE = {"num_classes": 10, "in_channels": 1, "image_size": 8}
WARNING = Finding("black_box_wins", 0.1, 0.02, "Square breaks 10.0% more", "Adapt the attack.", "Athalye et al. 2018")


@pytest.fixture
def evaluation(digits_model: nn.Module, digits: tuple[Tensor, Tensor]) -> Evaluation:
    pair = WorstOf(threat=LINF, attacks={"one": FGSM(threat=LINF), "many": PGD(threat=LINF, steps=5)})
    ladders = [Ladder(pair, eps=["0.02"]), Ladder(FGSM(threat=L2))]
    return evaluate(digits_model, digits[0][-60:], digits[1][-60:], ladders, index=torch.arange(40, 100))


@pytest.fixture
def bundle(tmp_path: Path, digits_model: nn.Module) -> Path:
    return save_bundle(
        tmp_path / "bundle",
        digits_model,
        {"_target_": "xrobust.models.SmallCNN", **ARCHITECTURE},
        class_names=[str(i) for i in range(10)],
        training={"threat": {"norm": "linf", "eps": 0.1}},
    )


def test_samples_csv_has_one_row_for_each_sample_and_radius(evaluation: Evaluation, tmp_path: Path) -> None:
    write_outputs(tmp_path, evaluation, [], "test", "cpu")
    with (tmp_path / "samples.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 60 * 3 and [int(row["index"]) for row in rows[::3]] == list(range(40, 100))
    assert {row["threat"] for row in rows} == {"linf ε=0.02", str(LINF), str(L2)}
    own = [row for row in rows if row["threat"] == str(LINF)]
    assert {row["broken_by"] for row in own} == {"", "clean", "one", "many"}
    assert sum(not row["broken_by"] for row in own) == evaluation.standing(0).sum()
    for row in rows:
        standing, wrong = not row["broken_by"], row["clean_prediction"] != row["label"]
        assert standing == (row["adversarial_prediction"] == row["label"])
        assert wrong == (row["broken_by"] == "clean") and standing == (row["distance"] == "")
        assert standing or float(row["distance"]) <= float(row["eps"]) * (1 + 1e-5)


def test_the_summary_holds_results_curves_turns_and_warnings(evaluation: Evaluation, tmp_path: Path) -> None:
    sound = Finding("random_outputs", 0.0, 0.0, "no logits differ", "", "")
    returned = write_outputs(tmp_path, evaluation, [sound, WARNING], "test", "cpu")
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert summary == returned
    assert [result["quantity"] for result in summary["results"]] == [
        "test/clean_accuracy",
        "test/robust_accuracy",
        "test/robust_accuracy",
        "test/union_robust_accuracy",
    ]
    assert [warning["check"] for warning in summary["warnings"]] == ["black_box_wins"]
    assert [check["check"] for check in summary["checks"]] == ["random_outputs", "black_box_wins"]
    assert [turn["attack"] for turn in summary["turns"]] == ["one", "many", "one", "many", "FGSM"]
    assert all(turn["seconds"] > 0 for turn in summary["turns"])
    assert [point["eps"] for point in summary["curves"][str(LINF)]] == [0.02, 0.1]
    for name in ("panel.png", "curve_0.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG"), name
    assert not (tmp_path / "curve_1.png").exists(), "one radius makes no curve"


def test_the_panel_shows_broken_samples_first(evaluation: Evaluation) -> None:
    outcomes = evaluation.outcomes
    shown = np.isin(outcomes.index, outcomes.shown)
    assert 0 < shown.sum() <= 10 and evaluation.clean[shown].all()
    assert not evaluation.union[shown].any()
    assert np.abs(outcomes.adversarial_images - outcomes.images[:, None]).max() > 0.05


def test_a_bundle_takes_results_and_warnings_along(evaluation: Evaluation, bundle: Path) -> None:
    add_results(bundle, accuracies(evaluation, "test"), [WARNING.as_dict()])
    clean, robust, *_ = read_config(bundle)["results"]
    assert "warnings" not in clean and robust["warnings"][0]["check"] == "black_box_wins"
    card = (bundle / "README.md").read_text(encoding="utf-8")
    for words in ("test/robust_accuracy", "### Warnings", "Square breaks 10.0% more. Adapt the attack.", "Athalye"):
        assert card.count(words) >= 1, words
    assert card.count("black_box_wins") == 1, "three results share one warning"
    assert not list(bundle.glob(".*partial"))
    xrobust.load(bundle)


def test_the_same_result_is_replaced_and_another_one_added(evaluation: Evaluation, bundle: Path) -> None:
    results = accuracies(evaluation, "test")
    add_results(bundle, results, [WARNING.as_dict()])
    add_results(bundle, results)
    assert len(read_config(bundle)["results"]) == len(results)
    assert "### Warnings" not in (bundle / "README.md").read_text(encoding="utf-8")
    add_results(bundle, accuracies(evaluation, "val")[:2])
    assert len(read_config(bundle)["results"]) == len(results) + 2


def test_the_checks_look_at_samples_of_the_evaluation(digits_model: nn.Module, digits: tuple[Tensor, Tensor]) -> None:
    x, y = (digits[0][:50] * 255).round().to(torch.uint8), digits[1][:50]
    model = nn.Sequential(digits_model, nn.Softmax(1)).eval()
    evaluation = evaluate(model, x, y, [Ladder(FGSM(threat=threat)) for threat in (LINF, L2)])
    checks: dict[str, Check] = {"p": ProbabilityOutputs(threshold=0.5), "r": RandomOutputs(threshold=0.0)}
    white_boxes = [APGD(threat=threat, steps=5) for threat in (LINF, L2)]
    findings = check_evaluation(evaluation, model, x, y, white_boxes, checks, count=20)
    assert [(finding.check, finding.warns) for finding in findings] == [("p", True), ("r", False)], (
        "equal findings once"
    )
    assert "of 20 outputs" in findings[0].measured


def test_progress_counts_every_turn(digits_model: nn.Module, digits: tuple[Tensor, Tensor]) -> None:
    with EvaluationProgress(total=40 * 2) as progress:
        ladders = [Ladder(FGSM(threat=LINF), ["0.05"])]
        evaluation = evaluate(digits_model, digits[0][:40], digits[1][:40], ladders, batch_size=15, watch=progress)
    (task,) = progress._progress.tasks
    assert task.finished and f"{evaluation.standing(0).sum()} stand after FGSM" in task.description


class Wrapped(WrappedModel):
    """Any network from elsewhere."""

    def __init__(self) -> None:
        network = SmallCNN(**ARCHITECTURE)
        super().__init__(network, name="any", **ARCHITECTURE, mean=[0.5], std=[0.2])


@pytest.mark.parametrize("form", ["safetensors", "whole", "nested", "parallel", "bare"])
def test_weights_load_in_their_usual_forms(form: str, digits_model: nn.Module, tmp_path: Path) -> None:
    model: nn.Module = Wrapped() if form == "bare" else SmallCNN(**ARCHITECTURE)
    state = digits_model.state_dict()
    file = tmp_path / ("weights.safetensors" if form == "safetensors" else "weights.pt")
    if form == "safetensors":
        save_file(state, file)
    elif form == "nested":
        torch.save({"state_dict": state, "epoch": 3}, file)
    elif form == "parallel":
        torch.save({f"module.{key}": value for key, value in state.items()}, file)
    else:
        torch.save(state, file)
    load_weights(model, file)
    loaded = {key.removeprefix("network."): value for key, value in model.state_dict().items()}
    assert all(torch.equal(loaded[key], value) for key, value in state.items())


def test_weights_that_do_not_load_are_refused_in_one_sentence(digits_model: nn.Module, tmp_path: Path) -> None:
    model = SmallCNN(num_classes=7, in_channels=1, image_size=8)
    file = tmp_path / "weights.pt"
    with pytest.raises(UserError, match="does not exist"):
        load_weights(model, file)
    file.write_bytes(b"PK\x03\x04half")
    with pytest.raises(UserError, match="not a readable state_dict"):
        load_weights(model, file)
    file.write_text("hello, this is text")
    with pytest.raises(UserError, match=r"not a readable state_dict$"):
        load_weights(model, file)
    with pytest.raises(UserError, match="is a folder, it must be a file"):
        load_weights(model, tmp_path)
    torch.save([1, 2], file)
    with pytest.raises(UserError, match="must hold tensors by name"):
        load_weights(model, file)
    torch.save(digits_model.state_dict(), file)
    with pytest.raises(UserError, match=r"do not fit SmallCNN: .*linear2") as error:
        load_weights(model, file)
    assert "\n" not in str(error.value)
    torch.save(digits_model, file)  # a pickled module is code
    with pytest.raises(UserError, match="not a readable state_dict"):
        load_weights(model, file)
