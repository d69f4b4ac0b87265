"""The model card of a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xrobust.export.explanation_table import card_markdown
from xrobust.export.result import RESULT_COLUMNS, result_cells, warnings_in

MANY = 10  # class names in a sentence


def model_card(config: Mapping[str, Any]) -> str:
    """Markdown: what the model is, how good it was measured to be and how, how to load it, what it is not for."""
    architecture, threat = config["architecture"], config["threat"]
    ball = f"{threat['norm']}, ε = {threat['eps']} (pixels in [0, 1])" if threat else "no recorded threat model"
    rows = [f"| {' | '.join(result_cells(r))} |" for r in config["results"]]
    results = "\n".join([f"| {' | '.join(RESULT_COLUMNS)} |", "|---|---|---|---|---|", *rows])
    return f"""# {title(config)}

An image classifier with {len(config["class_names"])} classes ({_some(config["class_names"])}),
trained by xrobust {config["versions"]["xrobust"]} with {_method(config)}. Threat model of the run:
{ball}.

## Results

{results if rows else "None were recorded."}

Accuracy under an attack is an upper bound of the true robust accuracy: a stronger attack may lower it.
Certified accuracy is a lower bound: a better certifier may raise it.
{_warnings(config["results"])}
## Training

{_training(config)}

## Use

```python
import xrobust

model = xrobust.load("path/to/this/folder")  # a plain torch.nn.Module in eval mode
logits = model(images)  # {_shape(architecture)}, pixels in [0, 1]
```

Normalisation is inside the model. Loading runs no code from this folder and checks the weights' SHA-256.

## Intended use and limits

For research on robustness and explanations. Robustness was measured as the results above say and not otherwise: other
norms, larger radii, and changes such as rotation, blur or another camera are not covered. The model has learnt
from one data set and knows nothing about inputs that are unlike it. It is not for decisions about people.
{_explanations(config.get("explanation_card"))}"""


def title(config: Mapping[str, Any]) -> str:
    """Architecture and training method: "ResNet, Trades"."""
    return f"{_class_of(config['architecture'])}, {_method(config)}"


def data_name(training: Mapping[str, Any]) -> str | None:
    """The data set in the configuration of a run, if it is recorded: "CIFAR10", "Digits"."""
    data = training.get("data")
    return (data.get("dataset") or _class_of(data)) if isinstance(data, Mapping) else None


def _class_of(node: Mapping[str, Any] | None) -> str:
    return str((node or {}).get("_target_", "unknown")).rsplit(".", 1)[-1]


def _method(config: Mapping[str, Any]) -> str:
    """The training method and the regularisers of its loss."""
    training = config["training"]
    return " + ".join([_class_of(training.get("defense")), *training.get("regularizers", {})])


def _training(config: Mapping[str, Any]) -> str:
    """What is recorded of the training, in lines; all of it is in config.json."""
    training = config["training"]
    defense = training.get("defense") or {}
    # A run has `train_attack`, whether it is used or not; a method on clean images has its radius only.
    attack = None if defense.get("images") == "clean" else defense.get("attack")
    known = {
        "data": data_name(config["training"]),
        "data version": (config.get("data") or {}).get("sha256"),
        "attack in training": _class_of(attack) if attack else None,
        "optimiser": _class_of(training["optim"].get("optimizer")) if training.get("optim") else None,
        "epochs": training.get("trainer", {}).get("max_epochs"),
        "seed": training.get("seed"),
    }
    lines = [f"- {name}: {value}" for name, value in known.items() if value is not None]
    return "\n".join([*lines, "\nThe whole configuration is in `config.json`."] if lines else ["None was recorded."])


def _some(names: Sequence[object]) -> str:
    return ", ".join([*map(str, names[:MANY]), *(["…"] if len(names) > MANY else [])])


def _explanations(card: Mapping[str, Any] | None) -> str:
    return "" if card is None else "\n" + card_markdown(card, level=2)


def _warnings(results: Sequence[Mapping[str, Any]]) -> str:
    """What the checks for gradient masking said; nothing if no attack was run."""
    attacked = [result for result in results if "attack" in result["protocol"]]
    warnings = warnings_in(results)
    if warnings:
        lines = "\n".join(f"- {warning}" for warning in warnings)
        return f"\n### Warnings\n\nThe accuracies under attack may be too high:\n\n{lines}\n"
    if not attacked:
        return ""
    if any("warnings" in result for result in attacked):
        return "\nThe checks for gradient masking raised no warning.\n"
    return "\nNo check for gradient masking has been run (`python -m xrobust.evaluate`).\n"


def _shape(architecture: Mapping[str, Any]) -> str:
    size = architecture.get("image_size", "H")
    return f"(N, {architecture.get('in_channels', 'C')}, {size}, {size})"
