"""python -m xrobust.export as a user runs it, and every snippet of docs/export.md on what it leaves."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from command import ROOT, here, in_process
from torch import Tensor, nn

import xrobust
from xrobust.export import __main__ as command
from xrobust.export.bundle import save_bundle
from xrobust.export.loading import read_config
from xrobust.models import TimmModel

pytest.importorskip("timm")

TOOLS = ("foolbox", "torchattacks", "art", "captum", "robustbench", "onnxruntime", "timm", "huggingface_hub")
SNIPPETS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "export.md").read_text(encoding="utf-8"), re.DOTALL)
RADIUS = 0.1  # of the attacks there
VIT = {
    "name": "vit_tiny_patch16_224",
    "num_classes": 10,
    "in_channels": 1,
    "image_size": 8,
    "mean": [0.3],
    "std": [0.4],
    "options": {"img_size": 8, "patch_size": 2, "depth": 1, "embed_dim": 32, "num_heads": 2},
}


@pytest.fixture(scope="module")
def run(digits: tuple[Tensor, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder: a vision transformer that has learnt the digits, exported in every format."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = TimmModel(**VIT)  # type: ignore[arg-type]
        optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
        for _ in range(4):
            for batch in torch.randperm(len(digits[0])).split(100):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(digits[0][batch]), digits[1][batch]).backward()
                optimizer.step()
    folder = tmp_path_factory.mktemp("runs") / "run"
    data = {"_target_": "xrobust.data.Digits", "num_classes": 10, "channels": 1, "image_size": 8}
    architecture = {"_target_": "xrobust.models.TimmModel", **VIT}
    about = {"class_names": [str(i) for i in range(10)], "training": {"threat": None, "data": data}}
    save_bundle(folder / "bundle", model, architecture, **about)  # type: ignore[arg-type]
    with pytest.MonkeyPatch.context() as patch:
        in_process(command, patch)(f"run={folder}", "formats=[safetensors,pt2,onnx,hub,timm]")
    return folder


def test_a_command_leaves_the_modules_as_they_were(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        here("xrobust.export")
    assert "run must be given" in capsys.readouterr().err
    assert xrobust.export is sys.modules["xrobust.export"] and xrobust.export.loading.read_config is read_config


@pytest.fixture
def call(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The command in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return in_process(command, monkeypatch)


def test_every_format_is_there_and_on_record(run: Path) -> None:
    rows = json.loads((run / "export" / "export.json").read_text())["formats"]
    assert rows.keys() == {"safetensors", "pt2", "onnx", "hub", "timm"}
    assert {name: row["differentiable"] for name, row in rows.items() if not row["differentiable"]} == {"onnx": False}
    for row in rows.values():
        assert row["max_difference"] <= 1e-5 and row["images"] == 64 and (run / "export" / row["file"]).exists()
        assert row["model_sha256"] == read_config(run / "bundle")["sha256"]
    assert {file.name for file in (run / "export").iterdir()} == {row["file"] for row in rows.values()} | {
        "export.json"
    }
    assert not list(run.rglob("*partial*"))


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda text: re.search(r"(?:import|from) (\w+)", text)[1])
def test_the_snippets_of_the_docs_run_as_they_stand(
    snippet: str, run: Path, digits: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    for tool in re.findall(r"^(?:import|from) (\w+)", snippet, re.MULTILINE):
        if tool in TOOLS:
            pytest.importorskip(tool)
    if "xrobust.export.hub" in snippet:
        pytest.importorskip("huggingface_hub")
    monkeypatch.chdir(run)
    images, labels = digits[0][:50], digits[1][:50]
    model = xrobust.load("bundle")
    known: dict = {"images": images.clone(), "labels": labels.clone()}
    exec(snippet, known)
    with torch.no_grad():
        logits = model(images)
        clean = (logits.argmax(1) == labels).float().mean().item()
        if "logits" in known:
            assert (torch.as_tensor(known["logits"]) - logits).abs().max() <= 1e-5 * logits.abs().max()
        if "adversarial" in known:
            assert (known["adversarial"] - images).abs().max() <= RADIUS + 1e-6
            assert (model(known["adversarial"]).argmax(1) == labels).float().mean() < clean - 0.1
    if "attributions" in known:
        assert known["attributions"].shape == images.shape and known["attributions"].abs().max() > 0
    if "accuracy" in known:
        assert known["accuracy"] == pytest.approx(clean)
    assert known.keys() & {"logits", "adversarial", "attributions", "accuracy"}


def test_timm_loads_the_weights_into_a_network_that_it_made_otherwise(run: Path, digits: tuple[Tensor, Tensor]) -> None:
    import timm

    network = timm.create_model(VIT["name"], num_classes=10, in_chans=1, **VIT["options"]).eval()  # type: ignore[arg-type]
    timm.models.load_checkpoint(network, run / "export" / "timm" / "model.safetensors")
    x = digits[0][:9]
    with torch.no_grad():
        assert torch.equal(network((x - 0.3) / torch.tensor(0.4)), xrobust.load(run / "bundle")(x))
    config = json.loads((run / "export" / "timm" / "config.json").read_text())
    assert config["pretrained_cfg"]["mean"] == [0.3] and config["pretrained_cfg"]["license"] is None


def test_a_checkpoint_is_exported_with_the_names_of_its_data(run: Path, call, capsys) -> None:
    training = read_config(run / "bundle")["training"]
    state = {f"model.{name}": tensor for name, tensor in xrobust.load(run / "bundle").state_dict().items()}
    model = {"_target_": "xrobust.models.TimmModel", **VIT}
    torch.save({"config": {**training, "model": model}, "state_dict": state}, "best.ckpt")
    call("run=best.ckpt", "formats=[safetensors]", "check_images=10")
    assert read_config("export/bundle")["class_names"] == [str(i) for i in range(10)]
    said = capsys.readouterr().out
    assert "safetensors" in said and "max |Δ|" in said and "10 real images" in said


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("formats=[onx]", "did you mean 'onnx'"),
        ("formats=[]", "formats=[] is empty: it must name at least one"),
        (f"output={__file__}", "is a file, it must be a folder"),
        ("check_images=1", "export.check_images must be an integer of at least 2"),
        ("run=nowhere", "run=nowhere must be a bundle, a checkpoint, or a run folder"),
        ("data=mnist5k", "images of 1 channels and 28 pixels a side"),
        ("+formats.pt2.opset=3", "formats.pt2.opset"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing(override: str, words: str, run: Path, call, capsys) -> None:
    with pytest.raises(SystemExit) as left:
        call(f"run={run}", "formats=[pt2]", "output=out", override)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert left.value.code == 2 and words in line and not list(Path.cwd().iterdir())


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, "data=… must be given"),
        (
            {"_target_": "xrobust.data.Digits", "ground_truth": {"_target_": "callbacks.Panels"}},
            "names callbacks.Panels",
        ),
    ],
)
def test_the_data_that_a_description_names_is_not_trusted(data: object, words: str, run: Path, call, capsys) -> None:
    model, config = xrobust.load(run / "bundle"), read_config(run / "bundle")
    save_bundle("foreign", model, config["architecture"], class_names=config["class_names"], training={"data": data})
    with pytest.raises(SystemExit):
        call("run=foreign", "formats=[safetensors]")
    assert words in capsys.readouterr().err and not Path("export").exists()
    call("run=foreign", "formats=[safetensors]", "data=digits", "output=mine")
    assert xrobust.load("mine/bundle") is not None


def test_altered_weights_are_not_exported(run: Path, call, capsys) -> None:
    model, config = xrobust.load(run / "bundle"), read_config(run / "bundle")
    folder = save_bundle("altered", model, config["architecture"], class_names=["0"] * 10, training=config["training"])
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(SystemExit):
        call("run=altered", "formats=[safetensors]")
    assert "altered" in capsys.readouterr().err and not Path("export").exists()
