"""The README's commands are the ones that run."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


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
    for document in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)", document.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (document.parent / target).exists(), (document.name, target)
