"""Every format in conf/formats keeps its promises: what comes back is the model, and nothing else is in it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conf_walk import choices, composed_together
from torch import Tensor

from xrobust.config.build import build
from xrobust.errors import UserError
from xrobust.export.bundle import save_bundle
from xrobust.export.exporting import export
from xrobust.export.finished import FinishedModel
from xrobust.export.formats import Format
from xrobust.export.loading import load_described
from xrobust.export.verify import TOLERANCE
from xrobust.models import TimmModel

pytest.importorskip("timm")
pytest.importorskip("onnxruntime")

# A vision transformer of timm, because every format must take it.
VIT = {
    "name": "vit_tiny_patch16_224",
    "num_classes": 10,
    "in_channels": 1,
    "image_size": 8,
    "mean": [0.3],
    "std": [0.4],
    "options": {"img_size": 8, "patch_size": 4, "depth": 1, "embed_dim": 24, "num_heads": 2},
}


def built(name: str) -> Format:
    """The format of that name, as the command makes it."""
    return build(composed_together("formats", command="export")[name], name)


@pytest.fixture(scope="module")
def finished(digits: tuple[Tensor, Tensor], tmp_path_factory: pytest.TempPathFactory) -> FinishedModel:
    """The transformer as a bundle, with real images."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = TimmModel(**VIT)  # type: ignore[arg-type]
        torch.nn.init.normal_(model.network.head.weight, std=0.5)  # timm starts it at zero, where all logits are equal
    about = {"class_names": [str(i) for i in range(10)], "training": {"threat": None}}
    architecture = {"_target_": "xrobust.models.TimmModel", **VIT}
    source = save_bundle(tmp_path_factory.mktemp("run") / "bundle", model, architecture, **about)  # type: ignore[arg-type]
    model, description = load_described(source)
    return FinishedModel(
        model=model, description=description, weights=source / "model.safetensors", images=digits[0][:40]
    )


@pytest.mark.parametrize("name", choices("formats"))
def test_a_format_gives_the_model_back_and_nothing_of_the_machine(
    name: str, finished: FinishedModel, tmp_path: Path
) -> None:
    form = built(name)
    (row,) = export(finished, {name: form}, tmp_path / "export").values()
    assert row["max_difference"] <= TOLERANCE and row["differentiable"] == form.differentiable
    path = tmp_path / "export" / form.filename
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    assert row["bytes"] == sum(len(file.read_bytes()) for file in files) and len(row["sha256"]) == len(files)
    assert set(form.packages) <= row["versions"].keys()
    here = str(Path(__file__).parents[2]).encode()
    image = finished.images[1].numpy().tobytes()
    for file in files:
        content = file.read_bytes()
        assert b"site-packages" not in content and here not in content and image not in content, file
    # What the file holds is the model: it outlives the one that it was made from.
    with torch.no_grad():
        again, true = form.read(path)(finished.images[:7]), finished.model(finished.images[:7])
    torch.testing.assert_close(again, true, rtol=0, atol=TOLERANCE * max(1.0, true.abs().max().item()))


def test_no_two_formats_write_the_same_file() -> None:
    names = [built(name).filename for name in choices("formats")]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", choices("formats"))
def test_a_missing_package_is_named(name: str) -> None:
    form = built(name)
    assert form.versions().keys() == set(form.packages)
    lacking = type("Lacking", (type(form),), {"packages": ("no-such-package",)})()
    with pytest.raises(UserError, match="no-such-package is missing: pip install no-such-package"):
        lacking.versions()
