"""Checkpoints in a run folder that may be moved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pytorch_lightning.callbacks import ModelCheckpoint


class MovableCheckpoint(ModelCheckpoint):
    """Lightning's, with Lightning's arguments; a resumed run finds its checkpoints where the folder is now.

    Lightning forgets which epoch was best if the folder has another name than when it was saved, and overwrites it.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        folder = Path(str(self.dirpath))

        def moved(path: str) -> str:
            return str(folder / Path(path).name) if path else path

        paths = {name: moved(state_dict[name]) for name in PATHS if name in state_dict}
        best = {moved(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **paths, "best_k_models": best, "dirpath": self.dirpath})


PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")
