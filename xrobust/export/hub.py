"""Models on the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import ModelHubMixin, snapshot_download
from torch import nn

from xrobust.export.loading import load


class HubModel(ModelHubMixin):
    """`HubModel.from_pretrained("user/name")`, or a local folder → what `xrobust.load` gives: a plain network.

    Only the bundle's own files are fetched; no code from them runs, and the hash of the weights is checked.
    """

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **options: Any) -> nn.Module:  # type: ignore[override]
        if Path(model_id).is_dir():
            return load(model_id)
        return load(snapshot_download(model_id, allow_patterns=["config.json", "model.safetensors"], **options))
