"""A folder for the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xrobust.export.bundle import write_bundle
from xrobust.export.card import data_name, model_card, title
from xrobust.export.finished import FinishedModel
from xrobust.export.formats.base import Format, Function
from xrobust.export.result import describe_protocol

USE = """
## From the Hub

```python
from xrobust.export.hub import HubModel

model = HubModel.from_pretrained("user/name")  # or the path of this folder
```
"""


@dataclass(frozen=True, kw_only=True)
class Hub(Format):
    """A bundle whose model card has the metadata that the Hub reads; nothing is uploaded.

    Args:
        license: as the Hub names it ("apache-2.0"), or None if it is not decided.
        tags: under which the Hub lists the model.
    """

    filename = "hub"
    packages = ("huggingface_hub",)

    license: str | None = None
    tags: Sequence[str] = ("adversarial-robustness", "explainability")

    def write(self, finished: FinishedModel, path: Path) -> None:
        from huggingface_hub import ModelCardData

        description = finished.description
        header = ModelCardData(
            model_name=title(description),
            library_name="xrobust",
            pipeline_tag="image-classification",
            license=self.license,
            tags=list(self.tags),
            eval_results=[self._result(row, description) for row in description["results"]] or None,
        )
        write_bundle(path, finished.model, description)
        card = f"---\n{header.to_yaml()}\n---\n\n{model_card(description)}{USE}"
        (path / "README.md").write_text(card, encoding="utf-8")

    def read(self, path: Path) -> Function:
        from xrobust.export.hub import HubModel

        return HubModel.from_pretrained(path)  # type: ignore[return-value]

    @staticmethod
    def _result(row: Mapping[str, Any], description: Mapping[str, Any]) -> Any:
        from huggingface_hub import EvalResult

        data = data_name(description["training"]) or "unknown"
        return EvalResult(
            task_type="image-classification",
            dataset_type=data.lower(),
            dataset_name=data,
            dataset_split=row["quantity"].partition("/")[0],
            metric_type="accuracy",
            metric_name=f"{row['quantity']} ({describe_protocol(row['protocol'])}, n={row['n']})",
            metric_value=row["value"],
        )
