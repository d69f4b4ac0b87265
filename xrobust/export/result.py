"""An accuracy with everything that is needed to believe it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from xrobust.metrics.accuracy import wilson_interval


@dataclass(frozen=True)
class AccuracyResult:
    """A share of correct samples, its 95% Wilson interval and its protocol.

    Args:
        quantity: the log key, as in "test/robust_accuracy".
        correct: how many samples.
        total: out of how many.
        protocol: how it was measured (attack, threat model, seed, data, split), in plain containers.
    """

    quantity: str
    correct: int
    total: int
    protocol: dict[str, Any] = field(default_factory=dict)

    @property
    def value(self) -> float:
        """correct / total."""
        return self.correct / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% Wilson score interval."""
        return wilson_interval(self.correct, self.total)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "quantity": self.quantity,
            "value": self.value,
            "interval_95": list(self.interval),
            "correct": self.correct,
            "n": self.total,
            "protocol": self.protocol,
        }


def images_protocol(split: str, data: str | None) -> dict[str, Any]:
    """Which images were measured on: the part of a protocol that says so; the data set where it is known."""
    return {"split": split, **({"data": data} if data else {})}


def describe_protocol(protocol: dict[str, Any]) -> str:
    """A protocol in one line: "PGD (linf ε=0.2, steps 40, restarts 1, keep worst), seed 0; MNIST 1f3a5c7e"."""
    method = protocol.get("attack") or protocol.get("certifier")
    told = f"{method['summary']}, seed {protocol['seed']}" if method else "no attack"
    return f"{told}; {protocol['data']}" if protocol.get("data") else told


def warnings_in(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """The warnings of the checks for gradient masking that stay with results, each once, in a line with its advice."""
    warnings = [warning for result in results for warning in result.get("warnings", [])]
    lines = (f"{w['check']}: {w['measured']}. {w['advice']} ({w['reference']})" for w in warnings)
    return list(dict.fromkeys(lines))


RESULT_COLUMNS = ("quantity", "value", "95% interval", "n", "protocol")


def result_cells(result: Mapping[str, Any]) -> list[str]:
    """The cells of a result, as `as_dict` gives it, under `RESULT_COLUMNS`."""
    low, high = result["interval_95"]
    protocol = describe_protocol(result["protocol"])
    return [result["quantity"], f"{result['value']:.2%}", f"{low:.2%} – {high:.2%}", str(result["n"]), protocol]
