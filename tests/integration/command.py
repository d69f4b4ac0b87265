"""Runs train.py as a user does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}


def train(*overrides: str, cwd: Path, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """The finished command, whatever its exit status."""
    command = [sys.executable, str(ROOT / "train.py"), *overrides]
    return subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=timeout)


def only_run(cwd: Path) -> Path:
    """The one run folder below a working directory."""
    (folder,) = (cwd / "runs").iterdir()
    return folder
