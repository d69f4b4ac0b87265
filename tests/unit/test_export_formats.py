"""Exports: each kind of network in each kind of format, and what happens when a format fails."""

from __future__ import annotations

import inspect
import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import xrobust
from xrobust.errors import UserError
from xrobust.export.bundle import add_results, save_bundle
from xrobust.export.exporting import export
from xrobust.export.finished import FinishedModel, find_model
from xrobust.export.formats import Format, Hub, Onnx, Pt2, Safetensors, Timm
from xrobust.export.formats.base import Function
from xrobust.export.loading import load_described, read_config
from xrobust.export.result import AccuracyResult
from xrobust.export.verify import agreement
from xrobust.models import SLLCNN, ResNet

SMALL_CNN = {"_target_": "xrobust.models.SmallCNN", "num_classes": 10, "in_channels": 1, "image_size": 8}
SHAPE = {"num_classes": 10, "in_channels": 3, "image_size": 32, "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}
RESNET18 = {**SHAPE, "blocks": [2, 2, 2, 2], "width": 4}
SLL = {"num_classes": 10, "in_channels": 1, "image_size": 8, "width": 4, "stages": 1, "hidden": 16}
PGD = {"attack": {"summary": "PGD (linf ε=0.2, steps 40)"}, "seed": 0}


def finish(folder: Path, model: nn.Module, architecture: dict[str, Any], images: Tensor) -> FinishedModel:
    """A bundle as the command finds it."""
    names = [str(i) for i in range(10)]
    training = {"threat": {"norm": "linf", "eps": "8/255"}, "data": {"_target_": "xrobust.data.Digits"}}
    save_bundle(folder, model, architecture, class_names=names, training=training)
    model, description = load_described(folder)
    return FinishedModel(model=model, description=description, weights=folder / "model.safetensors", images=images)


@pytest.fixture
def cnn(digits_model: nn.Module, digits: tuple[Tensor, Tensor], tmp_path: Path) -> FinishedModel:
    """A trained CNN with 40 real digits."""
    return finish(tmp_path / "run" / "bundle", digits_model, SMALL_CNN, digits[0][:40])


@pytest.fixture
def resnet18(digits: tuple[Tensor, Tensor], tmp_path: Path) -> FinishedModel:
    """A narrow ResNet-18 with statistics of real digits at 32 pixels in three channels."""
    images = nn.functional.interpolate(digits[0][:40], size=32).expand(-1, 3, -1, -1).contiguous()
    model = ResNet(**RESNET18)
    for _ in range(5):
        model(images)
    return finish(tmp_path / "run" / "bundle", model, {"_target_": "xrobust.models.ResNet", **RESNET18}, images)


@pytest.fixture
def sll(digits: tuple[Tensor, Tensor], tmp_path: Path) -> FinishedModel:
    """A 1-Lipschitz network, whose weights are inverses of matrices, which ONNX does not have."""
    architecture = {"_target_": "xrobust.models.SLLCNN", **SLL}
    return finish(tmp_path / "run" / "bundle", SLLCNN(**SLL), architecture, digits[0][:40])


@pytest.mark.parametrize("network", ["cnn", "resnet18", "sll"])
def test_programs_compute_what_the_model_computes(network: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    finished = request.getfixturevalue(network)
    rows = export(finished, {"pt2": Pt2(), "onnx": Onnx()}, tmp_path / "export")
    # The same operations in the same order: gradients, too, are equal bit for bit.
    assert (rows["pt2"]["max_difference"], rows["pt2"]["max_gradient_difference"]) == (0, 0)
    assert rows["onnx"]["max_difference"] < 1e-5 and rows["onnx"]["max_gradient_difference"] is None
    facts: dict[str, Any] = {"xrobust.json": ""}
    torch.export.load(tmp_path / "export" / "model.pt2", extra_files=facts)
    facts = json.loads(facts["xrobust.json"])
    assert facts["pixel_range"] == [0, 1] and facts["threat"] == {"norm": "linf", "eps": "8/255"}
    assert facts["weights_sha256"] == read_config(finished.weights.parent)["sha256"] == rows["pt2"]["model_sha256"]
    import onnx

    program = onnx.load(tmp_path / "export" / "model.onnx")
    written = {prop.key: prop.value for prop in program.metadata_props}
    assert written == {name: fact if isinstance(fact, str) else json.dumps(fact) for name, fact in facts.items()}
    assert [(opset.domain, opset.version) for opset in program.opset_import] == [("", 20)]
    shape = program.graph.input[0].type.tensor_type.shape.dim
    assert shape[0].dim_param and [size.dim_value for size in shape[1:]] == list(finished.shape)


def test_a_program_can_be_attacked(cnn: FinishedModel, digits: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    from xrobust.attacks import PGD as Attack
    from xrobust.threat import ThreatModel

    export(cnn, {"pt2": Pt2()}, tmp_path)
    program = torch.export.load(tmp_path / "model.pt2").module()
    program.eval = program.train = lambda *mode: program
    attack = Attack(threat=ThreatModel("linf", "0.2"), steps=5)
    x, y = digits[0][:40], digits[1][:40]
    found = attack(program, x, y)
    assert torch.equal(found, attack(cnn.model, x, y)) and not torch.equal(found, x)


@dataclass(frozen=True, kw_only=True)
class Faulty(Format):
    """A bundle that is read back with a fault; None stands for an error while writing."""

    fault: str

    filename = "faulty"
    packages = ("torch",)

    def write(self, finished: FinishedModel, path: Path) -> None:
        Safetensors().write(finished, path)
        if self.fault == "error":
            raise RuntimeError("no such operator\nand more") from KeyError("aten::fft")

    def read(self, path: Path) -> Function:
        model = xrobust.load(path)
        return {
            "logits": lambda x: model(x) + 1e-3,
            "nan": lambda x: model(x) * torch.where(x.mean((1, 2, 3)) > 0.1, torch.nan, 1)[:, None],
            "batch": lambda x: model(x) if len(x) > 1 else model(x) + 1,
            "gradients": lambda x: model(x.detach() + 2 * (x - x.detach())),
            "no gradients": lambda x: model(x).detach(),
        }[self.fault]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("error", "KeyError: 'aten::fft'"),
        ("logits", "its logits after reading it back are off by"),
        ("nan", "off by nan"),
        ("batch", "its logits"),
        ("gradients", "its gradients"),
        ("no gradients", "it has no gradients"),
    ],
)
def test_a_format_that_fails_is_named_and_nothing_changes(
    fault: str, words: str, cnn: FinishedModel, tmp_path: Path
) -> None:
    output = tmp_path / "export"
    export(cnn, {"safetensors": Safetensors()}, output)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    with pytest.raises(UserError, match=words) as error:
        export(cnn, {"hub": Hub(), "odd": Faulty(fault=fault)}, output)
    assert str(error.value).startswith("formats=odd failed, nothing is exported: ")
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before
    assert not list(tmp_path.rglob("*partial*"))


def test_differences_are_relative_where_logits_are_above_one(cnn: FinishedModel) -> None:
    def large(x: Tensor) -> Tensor:
        return 1000 * cnn.model(x)

    largest = large(cnn.images).abs().max().item()
    off = agreement(lambda x: large(x) + 1e-6 * largest, large, cnn.images)
    assert off.logits == pytest.approx(1e-6, rel=0.3) and off.gradient == 0
    with pytest.raises(UserError, match="off by 2e-05, allowed is 1e-05"):
        agreement(lambda x: large(x) + 2e-5 * largest, large, cnn.images)


def test_other_files_and_other_formats_stay(cnn: FinishedModel, tmp_path: Path) -> None:
    export(cnn, {"safetensors": Safetensors()}, tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "bundle" / "old").write_text("of an earlier export")
    export(cnn, {"hub": Hub()}, tmp_path)
    export(cnn, {"safetensors": Safetensors()}, tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine" and not (tmp_path / "bundle" / "old").exists()
    record = json.loads((tmp_path / "export.json").read_text())["formats"]
    assert record.keys() == {"safetensors", "hub"}
    (tmp_path / "export.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        export(cnn, {"hub": Hub()}, tmp_path)


def test_a_folder_for_the_hub_has_metadata_that_the_hub_reads(
    cnn: FinishedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub
    from huggingface_hub import ModelCard

    from xrobust.export.hub import HubModel

    folder = cnn.weights.parent
    add_results(folder, [AccuracyResult("test/robust_accuracy", 30, 40, {**PGD, "split": "test"})])
    finished = FinishedModel(model=cnn.model, description=read_config(folder), weights=cnn.weights, images=cnn.images)
    export(finished, {"hub": Hub(license="mit", tags=["mine"])}, tmp_path)
    card = ModelCard.load(tmp_path / "hub" / "README.md")
    assert card.data.license == "mit" and card.data.tags == ["mine"]
    assert card.data.pipeline_tag == "image-classification"
    (result,) = card.data.eval_results
    assert (result.dataset_name, result.metric_value) == ("Digits", 0.75)
    assert "PGD (linf ε=0.2, steps 40), seed 0, n=40" in result.metric_name
    assert "| test/robust_accuracy | 75.00% |" in card.text and "## Intended use and limits" in card.text
    # From the Hub it comes by name, whatever the mixin reads in its config.json.
    fetched: list[dict[str, Any]] = []

    def download(repo_id: str, **options: Any) -> str:
        inspect.signature(huggingface_hub.snapshot_download).bind(repo_id, **options)
        fetched.append({"repo_id": repo_id, **options})
        return str(tmp_path / "hub")

    monkeypatch.setattr("xrobust.export.hub.snapshot_download", download)
    monkeypatch.setattr(
        "huggingface_hub.hub_mixin.hf_hub_download", lambda *_, filename, **__: str(tmp_path / "hub" / filename)
    )
    model = HubModel.from_pretrained("user/name", revision="v1")
    assert torch.equal(model(cnn.images), cnn.model(cnn.images))
    assert fetched[0]["repo_id"] == "user/name" and fetched[0]["revision"] == "v1"
    # It is a bundle as well, with the hash of its weights.
    assert torch.equal(xrobust.load(tmp_path / "hub")(cnn.images), cnn.model(cnn.images))
    content = bytearray((tmp_path / "hub" / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "hub" / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="altered"):
        HubModel.from_pretrained(tmp_path / "hub")


def test_timm_takes_only_its_own_networks(cnn: FinishedModel, tmp_path: Path) -> None:
    pytest.importorskip("timm")
    with pytest.raises(UserError, match=r"formats=timm failed.*model=timm.*got xrobust\.models\.SmallCNN"):
        export(cnn, {"timm": Timm()}, tmp_path / "export")
    assert not (tmp_path / "export").exists()


def test_images_of_another_shape_are_refused(cnn: FinishedModel) -> None:
    with pytest.raises(UserError, match="images of 3 channels and 32 pixels a side, but the model is for 1 channels"):
        FinishedModel(
            model=cnn.model, description=cnn.description, weights=cnn.weights, images=torch.zeros(2, 3, 32, 32)
        )


def test_an_opset_that_the_exporter_lacks_is_refused() -> None:
    with pytest.raises(UserError, match=r"formats\.onnx\.opset must be an integer of at least 18, got 17"):
        Onnx(opset=17)


@pytest.mark.parametrize(
    ("made", "found"),
    [
        (["bundle/config.json", "checkpoints/best.ckpt"], "bundle"),
        (["checkpoints/best.ckpt"], "checkpoints/best.ckpt"),
        (["config.json"], ""),
    ],
)
def test_a_run_folder_is_searched_for_its_model(made: list[str], found: str, tmp_path: Path) -> None:
    for name in made:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_model(tmp_path) == tmp_path / found


class Code:
    """Pickled, it makes a file where it is loaded."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def test_a_checkpoint_with_code_in_it_is_refused_and_the_code_does_not_run(tmp_path: Path) -> None:
    file, trace = tmp_path / "evil.ckpt", tmp_path / "trace"
    torch.save({"config": {"model": SMALL_CNN}, "state_dict": {"model.x": Code(trace)}}, file)
    with pytest.raises(UserError, match="not a readable checkpoint"):
        xrobust.load(file)
    assert not trace.exists()
    pickle.loads(pickle.dumps(Code(trace)))
    assert trace.exists(), "the code would have run, had it been unpickled"


@pytest.mark.parametrize(
    ("architecture", "words"),
    [
        ("xrobust.models.SmallCNN", "must be a network of xrobust.models"),
        ({**SMALL_CNN, "_target_": "xrobust.models.os.system"}, "must be a network of xrobust.models"),
        ({**SMALL_CNN, "_target_": "xrobust.models.normalize.Tensor"}, "must be a network of xrobust.models"),
        ({**SMALL_CNN, "depht": 3}, r"SmallCNN cannot be built: .*depht"),
    ],
)
def test_an_architecture_that_is_no_network_of_ours_is_refused(
    architecture: object, words: str, cnn: FinishedModel
) -> None:
    file = cnn.weights.with_name("config.json")
    file.write_text(json.dumps({**read_config(file.parent), "architecture": architecture}))
    with pytest.raises(UserError, match=words):
        xrobust.load(file.parent)


def test_a_bundle_never_downloads_the_weights_that_it_was_trained_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timm = pytest.importorskip("timm")
    architecture = {"name": "test_resnet", "num_classes": 10, "in_channels": 1, "image_size": 8}
    from xrobust.models import TimmModel

    about = {"class_names": [str(i) for i in range(10)], "training": {}}
    recorded = {"_target_": "xrobust.models.TimmModel", **architecture, "pretrained": True}
    model = TimmModel(**architecture).eval()  # type: ignore[arg-type]
    save_bundle(tmp_path / "bundle", model, recorded, **about)  # type: ignore[arg-type]
    asked = []
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *a, **k: asked.append(k["pretrained"]) or create(*a, **k))
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(xrobust.load(tmp_path / "bundle")(x), model(x)) and asked == [False]


@pytest.mark.parametrize(
    ("results", "words"),
    [
        ([], "None were recorded"),
        ([AccuracyResult("test/robust_accuracy", 3, 4, PGD)], "No check for gradient masking has been run"),
    ],
)
def test_the_card_says_what_is_not_known(results: list[AccuracyResult], words: str, cnn: FinishedModel) -> None:
    folder = cnn.weights.parent
    save_bundle(folder, cnn.model, SMALL_CNN, class_names=range(1000), training={}, results=results)  # type: ignore[arg-type]
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert words in card and "no recorded threat model" in card and "8, 9, …)" in card and "None was recorded." in card


def test_the_card_says_that_checks_found_nothing_and_how_the_model_was_trained(cnn: FinishedModel) -> None:
    folder = cnn.weights.parent
    add_results(folder, [AccuracyResult("test/robust_accuracy", 3, 4, PGD)])
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "The checks for gradient masking raised no warning." in card and "- data: Digits" in card
    assert "linf, ε = 8/255" in card
