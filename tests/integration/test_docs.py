"""The documentation site builds without a warning, and its generated pages hold what is in the tree."""

from __future__ import annotations

import ast
import html
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from command import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    built = build(folder, ROOT / "docs")
    assert built.returncode == 0, built.stderr[-3000:]
    return folder / "html"


def build(folder: Path, docs: Path) -> subprocess.CompletedProcess[str]:
    """The command of the README, with its output in a folder."""
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", folder / "trees", docs]
    return subprocess.run([*command, folder / "html"], capture_output=True, text=True, timeout=280)


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def test_every_page_is_there_and_fits_a_phone(site: Path) -> None:
    front = text(site / "index.html")
    assert 'name="viewport"' in front
    for page in (ROOT / "docs").glob("*.md"):
        assert (site / f"{page.stem}.html").is_file()
        assert f'href="{page.stem}.html"' in front or page.stem == "index", page.name


def test_every_public_module_and_class_is_in_the_reference(site: Path) -> None:
    pages = [text(page) for page in (site / "generated/reference").glob("*.html")]
    anchors = {anchor for page in pages for anchor in re.findall(r'id="([\w.-]+)"', page)}
    count = 0
    for package in ("xrobust", "callbacks"):
        for file in (ROOT / package).rglob("*.py"):
            if file.stem == "__main__":
                continue
            parts = file.relative_to(ROOT).with_suffix("").parts
            module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            assert f"module-{module}" in anchors, module
            for node in ast.parse(text(file)).body:
                if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                    count += 1
                    assert f"{module}.{node.name}" in anchors, f"{module}.{node.name}"
    assert count > 500


def test_a_docstring_is_rendered_with_its_arguments_and_inherited_fields(site: Path) -> None:
    page = text(site / "generated/reference/xrobust.attacks.html")
    begin = page.index('id="xrobust.attacks.pgd.PGD"')
    entry = page[begin : page.index('<dt class="sig', begin)]
    words = html.unescape(re.sub(r"<[^>]+>", "", entry))
    assert "threat: ThreatModel" in words and "steps: int = 10" in words, "the fields of Attack come first"
    assert "x_{t+1} = Π(x_t + α · ascent(∇ₓ ℓ(f(x_t), y))), Madry et al. 2018." in words
    assert "<li><p><em>steps</em>: iterations, ≥ 1.</p></li>" in entry
    assert 'href="#xrobust.attacks.base.Attack"' in entry


def test_every_option_is_on_the_page_of_the_configuration_and_leads_to_its_class(site: Path) -> None:
    page = text(site / "generated/configuration.html")
    for file in (ROOT / "conf").rglob("*.yaml"):
        if file.parent in (ROOT / "conf", ROOT / "conf/hydra"):
            continue
        content = yaml.safe_load(text(file)) or {}
        target = content.get("_target_") or (content.get(file.stem) or {}).get("_target_", "")
        cell = f'<span class="pre">{file.stem}</span>'
        row = next(row for row in page.split("<tr") if cell in row and target in row)
        assert not target.startswith(("xrobust.", "callbacks.")) or "reference internal" in row, file.name
    assert '<section id="defense">' in page and "conf/train.yaml" in page


@pytest.mark.parametrize("planted", ["[gone](gone.md)", "[gone](tutorial.md#gone)", "![gone](images/gone.png)"])
def test_a_broken_link_fails_the_build(planted: str, tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "conf.py").write_text('extensions = ["myst_parser"]\nmyst_heading_anchors = 3\n')
    (docs / "tutorial.md").write_text("# Tutorial\n")
    (docs / "index.md").write_text(f"# Page\n\n{planted}\n\n```{{toctree}}\ntutorial\n```\n")
    assert build(tmp_path, docs).returncode == 1
