"""Attributions of large images fit into memory, however many points they take: the internal batch size bounds it."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_internal_batch_bounds_the_memory_of_integrated_gradients() -> None:
    """ResNet-18 on 3 × 224 × 224 pixels; MiB at the peak so far, after more and more work in a fresh process."""
    few, many, large = peaks(
        {"images": 4, "steps": 1, "batch_size": 4},
        {"images": 4, "steps": 4, "batch_size": 4},
        {"images": 64, "steps": 1, "batch_size": 64},
    )
    assert many < few + 80  # four times the points, in the room of one
    assert large > many + 500  # sixteen times the images in the network at once: about 24 MiB for each
    assert large < 4 * 1024  # and 50 points of each of the 64 images take no more


def peaks(*works: dict[str, int]) -> list[float]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, __file__, json.dumps(works)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def explain(works: list[dict[str, int]]) -> None:
    import torch
    from torchvision.models import resnet18

    from xrobust.attributions import IntegratedGradients

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, seen = resnet18(weights=None), []
    for work in works:
        images = torch.rand(work.pop("images"), 3, 224, 224)
        IntegratedGradients(**work)(model, images, 0)  # type: ignore[arg-type]
        seen.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    print(json.dumps(seen))


if __name__ == "__main__":
    explain(json.loads(sys.argv[1]))
