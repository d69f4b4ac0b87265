"""Two gloo processes that train the special methods keep their weights together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

WORKER = Path(__file__).with_name("defenses_worker.py")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
METHODS = ["free_at", "mart", "grad_align", "n_fgsm", "trades", "hat", "multi_threat"]
Weights = dict[str, Tensor]


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Weights]:
    folder = tmp_path_factory.mktemp("defenses")
    for command in ([sys.executable, str(WORKER), str(folder), "1"], [*TWO, str(WORKER), str(folder), "2"]):
        done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr[-3000:]
    return {
        file.stem: {name: torch.tensor(values) for name, values in json.loads(file.read_text()).items()}
        for file in folder.glob("rank_*.json")
    }


@pytest.mark.parametrize("name", METHODS)
def test_both_processes_end_with_the_same_weights(name: str, reports: dict[str, Weights]) -> None:
    first, second = (reports[f"rank_{rank}_of_2"] for rank in (0, 1))
    assert torch.equal(first[name], second[name])
    assert (first[name] - first["untrained"]).norm() > 0.01


@pytest.mark.parametrize("name", ["free_at", "mart"])
def test_without_random_numbers_two_processes_train_as_one(name: str, reports: dict[str, Weights]) -> None:
    alone, together = reports["rank_0_of_1"][name], reports["rank_0_of_2"][name]
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-6)
