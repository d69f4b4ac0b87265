"""The documentation site: `sphinx-build -W --keep-going docs docs/_build`."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))

from configuration import configuration_page  # noqa: E402
from reference import reference_pages  # noqa: E402

project = "xrobust"
html_title = project
html_theme = "furo"
html_show_copyright = html_show_sphinx = html_copy_source = False
extensions = ["myst_parser"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3  # the anchors that GitHub gives headings
add_module_names = False
toc_object_entries = False  # with them, the navigation of each page takes longer than all else
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88


def generate(app: Any) -> None:
    """Write the pages that follow from the tree, and remove those that no longer do."""
    root, folder = DOCS.parent, DOCS / "generated"
    pages = {f"reference/{name}.md": text for name, text in reference_pages(root).items()}
    pages["configuration.md"] = configuration_page(root)
    for file in folder.rglob("*.md"):
        if file.relative_to(folder).as_posix() not in pages:
            file.unlink()
    for name, text in pages.items():
        file = folder / name
        if not file.is_file() or file.read_text(encoding="utf-8") != text:  # a page that still holds is not rebuilt
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")


def link(app: Any, page: str, source: list[str]) -> None:
    """Links out of docs/: a folder of conf/ is on the page of the configuration, a file is served as it is."""
    source[0] = re.sub(r"\]\(\.\./conf/(\w+)\)", r"](generated/configuration.md#\1)", source[0])
    source[0] = source[0].replace("](../", "](path:../")


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("builder-inited", generate)
    app.connect("source-read", link)
