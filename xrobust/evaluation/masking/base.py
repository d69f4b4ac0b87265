"""Signs that an accuracy under attack says more about the attack than about the model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from xrobust.errors import UserError
from xrobust.evaluation.fixed import fixed_conditions
from xrobust.evaluation.masking.subject import Subject
from xrobust.evaluation.reason import reason


@dataclass(frozen=True)
class Finding:
    """What a check measured.

    Args:
        check: the name of the check.
        value: the share that was measured, in [0, 1].
        threshold: the largest share that raises no warning.
        measured: the value in a sentence.
        advice: what to do next, if it warns.
        reference: the paper.
    """

    check: str
    value: float
    threshold: float
    measured: str
    advice: str
    reference: str

    @property
    def warns(self) -> bool:
        """Whether the value is above its threshold (or not a number)."""
        return not self.value <= self.threshold

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Check(ABC):
    """A share that ought to be near zero: a subclass says how it is measured.

    Args:
        threshold: the largest share that raises no warning, in [0, 1].
    """

    threshold: float

    advice: ClassVar[str]
    reference: ClassVar[str]

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise UserError(f"{type(self).__name__}.threshold must be a share in [0, 1], got {self.threshold}")

    @abstractmethod
    def measure(self, subject: Subject) -> tuple[float, str]:
        """The share, in [0, 1], and a sentence about it."""

    def applies(self, subject: Subject) -> bool:
        """Whether the subject has what the check needs."""
        return True

    def __call__(self, subject: Subject, name: str | None = None) -> Finding:
        """Measure the share, in float32 and without a trace in the model or the random state.

        Args:
            subject: what is suspected.
            name: of the check in the finding; by default its class.
        """
        with fixed_conditions(subject.x.device, subject.seed):
            value, measured = self.measure(subject)
        name = name or type(self).__name__
        return Finding(name, value, self.threshold, measured, self.advice, self.reference)


def run_checks(checks: Mapping[str, Check], subject: Subject) -> list[Finding]:
    """The findings of all checks that apply, in their order; none where the model gets no sample right.

    A check whose attack cannot run on the model is a finding, too, of value 1.
    """
    if not len(subject.x):
        return []
    findings = []
    for name, check in checks.items():
        if check.applies(subject):
            try:
                findings.append(check(subject, name))
            except RuntimeError as error:
                measured = f"could not be measured: {reason(error)}"
                findings.append(Finding(name, 1.0, check.threshold, measured, check.advice, check.reference))
    return findings


def warnings_of(findings: Sequence[Finding]) -> list[Finding]:
    """Those that warn, each once."""
    return list(dict.fromkeys(finding for finding in findings if finding.warns))
