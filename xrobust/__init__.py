"""xrobust: train robust image classifiers and see what robustness does to their explanations."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xrobust.export.loading import load as load

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    # `xrobust.load` without paying for torch when only the configuration is wanted.
    if name == "load":
        from xrobust.export.loading import load

        return load
    raise AttributeError(f"module 'xrobust' has no attribute {name!r}")
