"""The README's commands are the ones that run, and those of all documents fit the configuration."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from conf_walk import WITHOUT_METRICS, composed

import xrobust
from xrobust.config.check import check_run

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Hydra's own settings, and ranges of its plugins, are no part of the configuration.
NOT_COMPOSED = re.compile(r"-m$|_$|hydra[./]|sweep=|.*=(glob|interval)\(")


def commands() -> list[str]:
    """The lines of the README's shell blocks."""
    return [line for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]


def test_the_gate_runs_the_test_command_of_the_readme() -> None:
    (test_command,) = [line for line in commands() if line.endswith("pytest")]
    assert test_command == 'pip install -c constraints.txt -e ".[dev]" && pytest'
    assert f"\n{test_command}\n" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_main_job_is_one_command() -> None:
    assert "pip install -c constraints.txt -e . && python train.py" in commands()


def test_local_links_and_pictures_exist() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#]+)", document.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (document.parent / target).exists(), (document.name, target)


def invocations(document: Path) -> list[tuple[str, list[str]]]:
    """The command and the overrides of each line in a document that begins with one of the commands."""
    text = document.read_text(encoding="utf-8").replace("\\\n", " ")
    found = re.findall(r"^ *python (?:train\.py|-m xrobust\.(\w+)) (.*)$", text, re.MULTILINE)
    return [(command or "train", shlex.split(given.replace("…", "_"), comments=True)) for command, given in found]


def first_job(override: str) -> str:
    """Of several values, which a multirun tries in turn, the first."""
    key, _, value = override.partition("=")
    return override if value.startswith("[") else f"{key}={value.partition(',')[0]}"


def test_the_documents_show_every_command() -> None:
    shown = {command for document in DOCUMENTS for command, _ in invocations(document)}
    assert shown >= {"train", "evaluate", "certify", "smooth", "explain", "compare", "export"}


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if invocations(d)], ids=lambda document: document.stem)
def test_commands_in_documents_compose_and_pass_the_signature_check(document: Path) -> None:
    for command, given in invocations(document):
        overrides = [first_job(one) if "-m" in given else one for one in given if not NOT_COMPOSED.match(one)]
        if command == "train" and not any(one.startswith(("metrics=", "experiment=")) for one in overrides):
            overrides += WITHOUT_METRICS
        check_run(composed(*overrides, command=command))


@pytest.mark.parametrize("file", sorted((ROOT / "sweep").glob("*.yaml")), ids=lambda file: file.stem)
def test_sweeps_of_wandb_compose_at_the_ends_of_their_ranges_and_watch_what_is_logged(file: Path) -> None:
    sweep = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert sweep["metric"]["name"] == "val/robust_accuracy" and sweep["program"] == "train.py"
    for end in (0, -1):
        given = {
            name: one["value"] if "value" in one else (one.get("values") or [one["min"], one["max"]])[end]
            for name, one in sweep["parameters"].items()
        }
        check_run(composed(*(f"{name}={value}" for name, value in given.items()), *WITHOUT_METRICS))


def test_citations_name_the_version() -> None:
    assert f"version: {xrobust.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"version {xrobust.__version__}" in README
