"""The model card of a bundle."""

from __future__ import annotations

from typing import Any

from xrobust.export.explanation_table import card_markdown
from xrobust.export.result import RESULT_COLUMNS, result_cells, warnings_in


def model_card(config: dict[str, Any]) -> str:
    """Markdown: what the model is, how good it was measured to be and how, how to load it, what it is not for."""
    architecture = dict(config["architecture"])
    name = architecture.pop("_target_").rsplit(".", 1)[-1]
    training = config["training"]
    rows = [f"| {' | '.join(result_cells(r))} |" for r in config["results"]]
    results = "\n".join([f"| {' | '.join(RESULT_COLUMNS)} |", "|---|---|---|---|---|", *rows])
    threat = config["threat"] or {}
    method = training.get("defense", {}).get("_target_", "unknown").rsplit(".", 1)[-1]
    return f"""# {name}, {method}

An image classifier with {len(config["class_names"])} classes ({", ".join(map(str, config["class_names"]))}),
trained by xrobust {config["versions"]["xrobust"]} with {method} for the threat model
{threat.get("norm")}, ε = {threat.get("eps")} (pixels in [0, 1]).

## Results

{results if rows else "None were recorded."}

Accuracy under an attack is an upper bound of the true robust accuracy: a stronger attack may lower it.
Certified accuracy is a lower bound: a better certifier may raise it.
{_warnings(warnings_in(config["results"]))}
## Use

```python
import xrobust

model = xrobust.load("path/to/this/folder")  # a plain torch.nn.Module in eval mode
logits = model(images)  # {_shape(architecture)}, pixels in [0, 1]
```

Normalisation is inside the model. Loading runs no code from this folder and checks the weights' SHA-256.

## Intended use and limits

For research on robustness and explanations. Robustness was measured for the threat model above only; other
norms, larger radii, and changes such as rotation, blur or another camera are not covered. The model has learnt
from one data set and knows nothing about inputs that are unlike it.
{_explanations(config.get("explanation_card"))}"""


def _explanations(card: dict[str, Any] | None) -> str:
    return "" if card is None else "\n" + card_markdown(card, level=2)


def _warnings(warnings: list[str]) -> str:
    if not warnings:
        return ""
    lines = "\n".join(f"- {warning}" for warning in warnings)
    return f"\n### Warnings\n\nThe accuracies under attack may be too high:\n\n{lines}\n"


def _shape(architecture: dict[str, Any]) -> str:
    size = architecture.get("image_size", "H")
    return f"(N, {architecture.get('in_channels', 'C')}, {size}, {size})"
