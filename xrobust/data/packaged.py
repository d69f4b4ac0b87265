"""Tables that ship inside installed Python packages: real images that need no download."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from xrobust.data.arrays import Arrays, make_arrays
from xrobust.data.split import stratified_split
from xrobust.errors import UserError


def packaged_table(package: str, project: str, file: str) -> np.ndarray:
    """The numbers of a .csv.gz file inside an installed package, found without importing the package.

    Raises:
        UserError: if the package is not installed or has no such file.
    """
    spec = find_spec(package)
    places = [Path(place) / file for place in (spec.submodule_search_locations or [])] if spec else []
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise UserError(f"these images come with the package {project}, which lacks {file} here: pip install {project}")
    import pandas

    return pandas.read_csv(path, header=None).to_numpy()


def split_off_test(source: str, images: np.ndarray, labels: np.ndarray, fraction: float) -> Arrays:
    """Images (N, H, W) that come as one set, with a stratified test set that is always the same."""
    train, test = stratified_split(torch.from_numpy(labels), fraction, seed=0)
    return make_arrays(source, 1, (images[train], labels[train]), (images[test], labels[test]))
