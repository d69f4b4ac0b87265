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
    def _from_pretrained(  # type: ignore[override]
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        **_configuration: Any,  # the mixin hands over what it reads in config.json, which `load` reads itself
    ) -> nn.Module:
        if Path(model_id).is_dir():
            return load(model_id)
        folder = snapshot_download(
            model_id,
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
            allow_patterns=["config.json", "model.safetensors"],
        )
        return load(folder)
