"""Runs the commands as a user does."""

from __future__ import annotations

import importlib
import logging
import os
import runpy
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", "PYTHONPATH": str(ROOT)}


def train(*overrides: str, cwd: Path, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """The finished command, whatever its exit status."""
    command = [sys.executable, str(ROOT / "train.py"), *overrides]
    return subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=timeout)


def here(name: str, *overrides: str) -> None:
    """`python <name>.py …` or `python -m <name> …` in this process, which spares the seconds that imports take."""
    with pytest.MonkeyPatch.context() as monkeypatch, warnings.catch_warnings():
        warnings.simplefilter("default")  # as on a terminal
        monkeypatch.setattr(sys, "argv", [name, *overrides])
        try:
            if name.endswith(".py"):
                runpy.run_path(str(ROOT / name), run_name="__main__")
            else:
                # As if nothing had imported it; a package stays, or its modules would belong to two of them.
                module = f"{name}.__main__" if hasattr(importlib.import_module(name), "__path__") else name
                monkeypatch.delitem(sys.modules, module, raising=False)
                runpy.run_module(name, run_name="__main__")
        finally:
            logging.disable(logging.NOTSET)


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


def kill(*arguments: str, cwd: Path, once: Callable[[], object]) -> None:
    """Start `python <arguments>` in another process, and kill it as soon as `once()` is true."""
    process = subprocess.Popen([sys.executable, *arguments], cwd=cwd, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not once():
        assert process.poll() is None and time.monotonic() < deadline, "the command ended before it could be killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()


def only_run(cwd: Path) -> Path:
    """The one run folder below a working directory."""
    (folder,) = (cwd / "runs").iterdir()
    return folder
