"""Finished runs side by side: read, grouped, averaged, correlated."""

from xrobust.comparison.compare import compare_runs
from xrobust.comparison.places import read_places

__all__ = ["compare_runs", "read_places"]
