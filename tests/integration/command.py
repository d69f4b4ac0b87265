"""Runs the commands as a user does."""

from __future__ import annotations

import logging
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}


def train(*overrides: str, cwd: Path, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """The finished command, whatever its exit status."""
    command = [sys.executable, str(ROOT / "train.py"), *overrides]
    return subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=timeout)


def refusal(*overrides: str, cwd: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line with which train.py, called in this process, refuses its arguments; nothing is left in runs/."""
    monkeypatch.chdir(cwd)
    monkeypatch.setattr(sys, "argv", ["train.py", *overrides])
    try:
        with pytest.raises(SystemExit) as left:
            runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
    finally:
        logging.disable(logging.NOTSET)
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert not list(cwd.glob("runs/*/*"))
    return line


def in_process(command: ModuleType, monkeypatch: pytest.MonkeyPatch, *given: str) -> Callable[..., None]:
    """`python -m xrobust.<command>` in this process, which spares the seconds that imports take."""

    def call(*overrides: str) -> None:
        monkeypatch.setattr(sys, "argv", [command.__name__, *given, *overrides])
        try:
            command.main()
        finally:
            logging.disable(logging.NOTSET)

    return call


def only_run(cwd: Path) -> Path:
    """The one run folder below a working directory."""
    (folder,) = (cwd / "runs").iterdir()
    return folder
