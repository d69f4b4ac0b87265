"""Who may import whom: the arrows of docs/architecture.md."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OWN = {"xrobust", "callbacks", "train"}
HEAVY = {"pytorch_lightning", "hydra", "omegaconf", "wandb", "torchmetrics", "lightning"}
# Each room of xrobust → the rooms below it that it may use.
BELOW = {
    "errors": set(),
    "randomness": set(),
    "schedules": {"errors"},
    "threat": {"errors", "randomness"},
    "frame": set(),
    "files": set(),
    "digest": set(),
    "attacks": {"digest", "threat", "frame", "errors", "randomness"},
    "certification": {"attacks", "models", "threat", "frame", "errors", "randomness"},
    "attributions": {"smoothing", "threat", "frame", "errors", "randomness"},
    "smoothing": {"threat", "frame", "errors", "randomness"},
    "regularizers": {"attributions", "attacks", "threat", "frame", "errors", "randomness"},
    "models": {"errors", "randomness"},
    "metrics": {"certification", "attacks", "attributions", "threat", "frame", "errors", "randomness"},
    "data": {"digest", "errors", "randomness"},
    "export": {"metrics", "models", "errors", "files"},
    "defenses": {
        "attacks",
        "certification",
        "regularizers",
        "smoothing",
        "threat",
        "frame",
        "metrics",
        "export",
        "errors",
        "randomness",
        "schedules",
    },
    "report": {"export", "errors", "files"},
    "evaluation": {
        "digest",
        "attacks",
        "certification",
        "smoothing",
        "threat",
        "frame",
        "metrics",
        "models",
        "export",
        "report",
        "errors",
        "files",
        "randomness",
    },
    "explanation": {
        "attacks",
        "attributions",
        "threat",
        "metrics",
        "export",
        "report",
        "errors",
        "files",
    },
    "comparison": {"attributions", "config", "export", "report", "errors", "files", "randomness"},
    "config": {"errors", "files"},
    "command": {"config", "data", "export", "files", "threat", "errors"},
}


def imported(file: Path) -> set[str]:
    """The modules that a file imports, at its top or inside functions, except for type checking only."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room(file: Path) -> str:
    if file.name == "__main__.py":  # a command, wherever it lies
        return "__main__"
    return file.relative_to(ROOT / "xrobust").parts[0].removesuffix(".py")


def breaches(where: str, names: set[str]) -> set[str]:
    """What a room of xrobust imports although it may not."""
    found = {name for name in names if name.split(".")[0] in OWN - {"xrobust"}}
    heavy = {name for name in names if name.split(".")[0] in HEAVY}
    allowed = {
        "metrics": {"torchmetrics"},
        "defenses": {"pytorch_lightning", "torchmetrics"},
        "data": {"pytorch_lightning"},
        "config": {"hydra", "omegaconf"},
    }.get(where, set())
    found |= {name for name in heavy if name.split(".")[0] not in allowed}
    if where in BELOW:
        rooms = {name.split(".")[1] for name in names if name.startswith("xrobust.")}
        known = {path.stem for path in (ROOT / "xrobust").iterdir()}
        found |= {f"xrobust.{name}" for name in (rooms & known) - BELOW[where] - {where}}
    return found


FILES = sorted((ROOT / "xrobust").rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_go_down(file: Path) -> None:
    assert not breaches(room(file), imported(file))


def test_every_room_has_its_place() -> None:
    commands = {file.stem for file in (ROOT / "xrobust").glob("*.py") if (ROOT / f"conf/{file.stem}.yaml").is_file()}
    rooms = {room(file) for file in FILES} - commands - {"__init__", "__main__"}
    assert rooms == set(BELOW)


def test_only_callbacks_import_wandb_and_nothing_imports_train() -> None:
    for file in ROOT.rglob("*.py"):
        if ".venv" in file.parts or file.is_relative_to(ROOT / "callbacks"):
            continue
        names = {name.split(".")[0] for name in imported(file)}
        assert "wandb" not in names or "tests" in file.parts, file
        assert "train" not in names, file


@pytest.mark.parametrize(
    ("where", "names"),
    [
        ("threat", {"pytorch_lightning"}),
        ("metrics", {"hydra.utils"}),
        ("attacks", {"xrobust.defenses"}),
        ("certification", {"torchmetrics"}),
        ("certification", {"xrobust.evaluation.certification"}),
        ("attributions", {"xrobust.metrics.probe"}),
        ("regularizers", {"xrobust.defenses"}),
        ("defenses", {"callbacks"}),
        ("models", {"wandb"}),
    ],
)
def test_a_planted_breach_is_seen(where: str, names: set[str]) -> None:
    assert breaches(where, names) == names or breaches(where, names) == {"xrobust." + n.split(".")[1] for n in names}
