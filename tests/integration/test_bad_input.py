"""A mistake ends in one sentence that names the value and what is allowed, before training starts."""

from __future__ import annotations

import importlib
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from command import ROOT, in_process, refusal, train
from conf_walk import WITHOUT_METRICS

import xrobust
from xrobust.data import Digits
from xrobust.errors import UserError
from xrobust.export.bundle import save_bundle
from xrobust.models import SmallCNN

ARRAYS = ["data=arrays", "data.num_classes=3", "data.channels=1", "data.image_size=8", "data.path=images.npz"]


def images(folder: Path, **changes: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "x_train": rng.integers(0, 256, (60, 8, 8), dtype=np.uint8),
        "y_train": np.arange(60, dtype=np.uint8) % 3,
        "x_test": rng.integers(0, 256, (30, 8, 8), dtype=np.uint8),
        "y_test": np.arange(30, dtype=np.uint8) % 3,
    }
    np.savez(folder / "images.npz", **{**arrays, **changes})


@pytest.fixture
def assert_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Calls train.py in a folder and looks for words in what it says."""

    def check(overrides: list[str], words: list[str]) -> None:
        line = refusal("logger=csv", *WITHOUT_METRICS, *overrides, cwd=tmp_path, monkeypatch=monkeypatch, capsys=capsys)
        assert line.startswith("error: ")
        assert all(word in line for word in words), line

    return check


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["threat.eps=-1"], ["threat.eps", "-1", "at least 0"]),
        (["threat.norm=l7"], ["threat.norm", "l7", "linf", "l2", "l1"]),
        (["train_attack.stpes=3"], ["train_attack.stpes", "did you mean 'train_attack.steps'"]),
        (["data=mnist", "data.root=nowhere"], ["data.root", "nowhere", "mnist.npz", "data.download=true"]),
        (["defense=pgd_ta"], ["defense=pgd_ta", "did you mean 'pgd_at'"]),
        (["callbacks.explanation_quality.images=0"], ["images", "at least 1"]),
        (["resume=nowhere"], ["resume=nowhere", "config.yaml"]),
        (["experiment=mnist_pgd_ta"], ["experiment=mnist_pgd_ta", "did you mean 'mnist_pgd_at'"]),
        (["study=tradess"], ["study=tradess", "did you mean 'trades'"]),
        (["test_attack.threat=linf_0_1"], ["test_attack", "threat must be a threat model", "'linf_0_1'"]),
        (["attack@map_attack=pgd"], ["map_attack must be an attack on maps", "PGD"]),
        (["defense=null"], ["defense=null is no choice", "defense=<name>"]),
        (["threat=0.3"], ["threat=0.3 is no choice"]),
        (["trainer.val_check_interval=2"], ["is left to its default; +trainer.val_check_interval=… gives it a value"]),
        (["optim=sgd_cosine", "optim.optimizer.foreach=true"], ["+optim.optimizer.foreach=… gives it a value"]),
        (["seed=4294967296"], ["seed must be at most 4294967295"]),
        (
            ["trainer.strategy=ddp"],
            ["trainer.strategy is not a key of the chosen trainer", "ddp", "; +trainer.strategy"],
        ),
        (["data=digits", "evaluate.after_fit=true", "evaluate.limit=1000"], ["evaluate.limit=1000", "359"]),
    ],
)
def test_bad_values_on_the_command_line(overrides: list[str], words: list[str], assert_one_sentence) -> None:
    assert_one_sentence(overrides, words)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["+foo.bar=3"], ["foo is not a key", "allowed: threat"]),
        (["+evaluate.limmit=3"], ["evaluate.limmit", "did you mean 'limit'"]),
        (["+attribution.foo=3"], ["attribution.foo", "not chosen"]),
        (["callbacks.early_stopping.patience=3"], ["pieces=early_stopping", "not chosen"]),
        (["logger.wandb.project=x"], ["logger=[…,wandb]", "not chosen"]),
        (["defense.beta=3"], ["defense.beta is not a key of the chosen defense", "trades"]),
        (["certifier=[ibp,crown]"], ["certifier takes one choice", "-m certifier=ibp,crown"]),
        (["attack@train_attack=[fgsm]"], ["attack@train_attack takes one choice"]),
        (["evaluate.eps=0.1"], ["evaluate.eps=0.1 must be a list, as in evaluate.eps=[0.1]"]),
        (["regularizers=[right_reasons]", "data=cifar10"], ["data.ground_truth, which this data does not have"]),
    ],
)
def test_bad_keys_and_choices_on_the_command_line(overrides: list[str], words: list[str], assert_one_sentence) -> None:
    assert_one_sentence(overrides, words)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["train_attack.steps=0"], ["train_attack: PGD.steps", "at least 1"]),
        (["trainer.devices=0"], ["trainer: ", "devices=0"]),
        (["trainer.max_epochs=0"], ["trainer.max_epochs must be an integer of at least 1, got 0"]),
        (["trainer.max_epochs=abc"], ["trainer.max_epochs", "'abc'"]),
        (["trainer.max_epochs=null"], ["trainer.max_epochs=null goes with trainer.max_steps"]),
        (["optim.optimizer.lr=-1"], ["optim.optimizer", "learning rate: -1"]),
        (["optim.optimizer.lr=abc"], ["optim.optimizer.lr must be float", "'abc'"]),
        (["data=mnist", "data.root=null"], ["data.root must be", "null"]),
        (["trainer.accumulate_grad_batches=0"], ["trainer.accumulate_grad_batches must be an integer of at least 1"]),
        (["trainer.limit_val_batches=2.5"], ["trainer", "2.5 for limit_val_batches"]),
        (["pieces=[early_stopping]", "callbacks.early_stopping.mode=foo"], ["callbacks", "min, max, got foo"]),
        (["defense=trades", "defense.beta=-1"], ["defense.beta", "-1"]),
        (["model.activation=foo"], ["model.activation='foo'"]),
        (["defense=ibp", "threat=l2_1_5"], ["defense", "threat.norm", "'linf'"]),
        (["model.num_classes=3"], ["(3,)", "data.num_classes=10"]),
        (["model.image_size=28"], ["does not accept the images of data", "(1, 8, 8)"]),
        (["evaluate.after_fit=true", "evaluate.eps=[abc]"], ["evaluate: eps must be a number", "'abc'"]),
        (["evaluate.after_fit=true", "evaluate.surrogate=nowhere"], ["evaluate: surrogate: nowhere", "no such bundle"]),
        (["evaluate.after_fit=true", "evaluate.attack=attribution_topk"], ["evaluate: the attack of an evaluation"]),
    ],
)
def test_what_would_fail_later_is_refused_before_the_data_loads(
    overrides: list[str], words: list[str], assert_one_sentence, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Digits, "load", lambda self: pytest.fail("the data was loaded"))
    assert_one_sentence(["data=digits", *overrides], words)


@pytest.mark.parametrize("override", ["resume=taken", "hydra.run.dir=taken", "hydra.run.dir=taken/below"])
def test_a_file_where_a_run_folder_should_be(override: str, tmp_path: Path, assert_one_sentence) -> None:
    (tmp_path / "taken").write_text("a file")
    assert_one_sentence([override], ["taken", "is a file"])


def test_a_run_folder_where_none_can_be_made(assert_one_sentence) -> None:
    assert_one_sentence(["hydra.run.dir=/proc/run"], ["no folder of a run can be made at /proc"])


MONITORED = ["monitor=val/nonsense is not logged by this run", "val/robust_accuracy"]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["callbacks.best_checkpoint.monitor=val/nonsense"], MONITORED),
        (["pieces=[early_stopping]", "callbacks.early_stopping.monitor=val/nonsense"], MONITORED),
        (["callbacks=[explanation_card]", "attribution=[attention_rollout]"], ["attribution.attention_rollout: Atten"]),
        (["callbacks=[attribution_panels]", "attribution=[attention_rollout]"], ["attribution.attention_rollout: Att"]),
    ],
)
def test_what_training_finds_out(overrides: list[str], words: list[str], tmp_path: Path, monkeypatch, capsys) -> None:
    short = ["data=digits", *WITHOUT_METRICS, "trainer.limit_train_batches=1"]
    given = ["logger=csv", *short, "hydra.run.dir=here", *overrides]
    line = refusal(*given, cwd=tmp_path, monkeypatch=monkeypatch, capsys=capsys)
    assert all(word in line for word in words), line


def test_a_mistake_ends_the_process_without_a_traceback(tmp_path: Path) -> None:
    done = train("logger=csv", "threat.eps=-1", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and len(done.stderr.strip().splitlines()) == 1


def test_labels_out_of_range(tmp_path: Path, assert_one_sentence) -> None:
    images(tmp_path, y_train=np.arange(60, dtype=np.uint8) % 5)
    assert_one_sentence(ARRAYS, ["data.num_classes=3", "0 to 4"])


def test_images_that_are_not_pixels(tmp_path: Path, assert_one_sentence) -> None:
    images(tmp_path, x_train=np.full((60, 8, 8), 300.0))
    assert_one_sentence(ARRAYS, ["x_train", "uint8"])


def test_a_corrupt_file(tmp_path: Path, assert_one_sentence) -> None:
    images(tmp_path)
    whole = (tmp_path / "images.npz").read_bytes()
    (tmp_path / "images.npz").write_bytes(whole[: len(whole) // 2])
    assert_one_sentence(ARRAYS, ["images.npz"])


def test_debug_shows_the_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py", "logger=csv", "threat.eps=-1", "debug=true"])
    with pytest.raises(UserError, match=r"threat\.eps"):  # which nobody catches
        runpy.run_path(str(ROOT / "train.py"), run_name="__main__")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    architecture = {"num_classes": 10, "in_channels": 1, "image_size": 8}
    return save_bundle(
        tmp_path / "bundle",
        SmallCNN(**architecture),
        {"_target_": "xrobust.models.SmallCNN", **architecture},
        class_names=[str(i) for i in range(10)],
        training={"threat": {"norm": "linf", "eps": 0.1}},
    )


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_bundle_cut_in_half(bundle: Path, name: str) -> None:
    content = (bundle / name).read_bytes()
    (bundle / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="damaged"):
        xrobust.load(bundle)


def test_an_altered_bundle(bundle: Path) -> None:
    content = bytearray((bundle / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (bundle / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="altered"):
        xrobust.load(bundle)


def test_a_bundle_that_names_foreign_code(bundle: Path) -> None:
    config = (bundle / "config.json").read_text()
    (bundle / "config.json").write_text(config.replace("xrobust.models.SmallCNN", "os.system"))
    with pytest.raises(UserError, match=r"must be a network of xrobust\.models, got os\.system"):
        xrobust.load(bundle)


def test_a_checkpoint_cut_in_half(tmp_path: Path) -> None:
    (tmp_path / "half.ckpt").write_bytes(b"PK\x03\x04half")
    with pytest.raises(UserError, match=r"half.ckpt is not a readable checkpoint"):
        xrobust.load(tmp_path / "half.ckpt")
    (tmp_path / "text.ckpt").write_text("hello, this is text")
    with pytest.raises(UserError, match=r"text.ckpt is not a readable checkpoint of train.py$"):
        xrobust.load(tmp_path / "text.ckpt")
    with pytest.raises(UserError, match="no such bundle"):
        xrobust.load(tmp_path / "none")


def test_a_failed_export_leaves_the_old_bundle_whole(bundle: Path) -> None:
    before = {file.name: file.read_bytes() for file in bundle.iterdir()}
    architecture = {
        "_target_": "xrobust.models.SmallCNN",
        "num_classes": 10,
        "in_channels": 1,
        "image_size": 8,
    }
    with pytest.raises(TypeError):
        save_bundle(
            bundle,
            SmallCNN(num_classes=10, in_channels=1, image_size=8),
            architecture,
            class_names=["0"],
            training={"not": object()},  # JSON cannot hold it
        )
    assert {file.name: file.read_bytes() for file in bundle.iterdir()} == before
    assert not list(bundle.parent.glob(".*partial"))
    shutil.rmtree(bundle)


@pytest.mark.parametrize("name", ["evaluate", "certify", "smooth", "explain", "diff_roar"])
def test_a_command_takes_one_model(name: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    command = in_process(importlib.import_module(f"xrobust.{name}"), monkeypatch)
    for given in ([], ["bundle=bundle", "model=small_cnn"]):
        with pytest.raises(SystemExit):
            command(*given)
        assert "exactly one must be given: bundle=" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["certify", "smooth", "explain", "diff_roar"])
def test_a_bundle_for_other_images_is_refused(name: str, tmp_path: Path, monkeypatch, capsys) -> None:
    architecture = {"num_classes": 10, "in_channels": 1, "image_size": 12}
    target = {"_target_": "xrobust.models.SmallCNN", **architecture}
    names = [str(i) for i in range(10)]
    folder = save_bundle(tmp_path / "bundle", SmallCNN(**architecture), target, class_names=names, training={})
    assert len({file.stat().st_mode for file in folder.iterdir()}) == 1, "whoever reads one file reads all"
    command = in_process(importlib.import_module(f"xrobust.{name}"), monkeypatch)
    with pytest.raises(SystemExit):
        command(f"bundle={folder}", "data=digits", f"output={tmp_path / 'out'}")
    assert "the model does not accept images of shape (1, 8, 8)" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
