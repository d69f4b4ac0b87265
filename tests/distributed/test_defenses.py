"""Two gloo processes that train a method of conf/defense keep their weights together, and train as one would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conf_walk import GIVEN, WITHOUT_METRICS, choices, composed
from torch import Tensor

from xrobust.export.bundle import save_bundle
from xrobust.models import SmallCNN

WORKER = Path(__file__).with_name("defenses_worker.py")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
ARCHITECTURE = {"num_classes": 10, "in_channels": 1, "image_size": 8}
NAMES = choices("defense")
EXACT = ("standard", "free_at", "pgd_at", "mart", "alp", "score")  # draw no random numbers with such an attack
Weights = dict[str, Tensor]


def configuration(name: str) -> dict[str, Any]:
    """The method's, with a training attack that draws no random numbers."""
    given = ["data=digits", "threat.eps=0.1", "train_attack.random_start=false", *WITHOUT_METRICS]
    return composed(f"defense={name}", *given, *GIVEN.get(f"defense={name}", []))["defense"]


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Weights]:
    folder = tmp_path_factory.mktemp("defenses")
    names = [str(i) for i in range(10)]
    helper, target = SmallCNN(**ARCHITECTURE), {"_target_": "xrobust.models.SmallCNN", **ARCHITECTURE}
    save_bundle(folder / "bundle", helper, target, class_names=names, training={"threat": None})
    (folder / "methods.json").write_text(json.dumps({name: configuration(name) for name in NAMES}))
    alone, two = ([*start, str(WORKER), str(folder)] for start in ([sys.executable], TWO))
    for command in ([*alone, "1", *EXACT], [*two, "2"]):
        done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr[-3000:]
    return {
        file.stem: {name: torch.tensor(values) for name, values in json.loads(file.read_text()).items()}
        for file in folder.glob("rank_*.json")
    }


@pytest.mark.parametrize("name", NAMES)
def test_both_processes_end_with_the_same_weights(name: str, reports: dict[str, Weights]) -> None:
    first, second = (reports[f"rank_{rank}_of_2"][name] for rank in (0, 1))
    assert torch.equal(first, second)


@pytest.mark.parametrize("name", EXACT)
def test_without_random_numbers_two_processes_train_as_one(name: str, reports: dict[str, Weights]) -> None:
    alone, together = reports["rank_0_of_1"][name], reports["rank_0_of_2"][name]
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-5)
