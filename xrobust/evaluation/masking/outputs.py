"""Outputs and modes that attacks are not made for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.nn.modules.batchnorm import _BatchNorm

from xrobust.attacks.standing import fresh_logits
from xrobust.evaluation.masking.base import Check
from xrobust.evaluation.masking.subject import Subject

TOLERANCE = 1e-5  # relative to the largest logit


@dataclass(frozen=True, kw_only=True)
class ProbabilityOutputs(Check):
    """Share of outputs that are probabilities where logits belong: non-negative, of sum 1 (Carlini & Wagner 2017)."""

    advice: ClassVar[str] = (
        "Let the model return what goes into its softmax. The cross entropy of a softmax of a softmax is nearly flat, "
        "and margins of probabilities saturate, so attacks are far weaker than they could be."
    )
    reference: ClassVar[str] = "Carlini & Wagner 2017; Croce & Hein 2020, AutoAttack"

    def measure(self, subject: Subject) -> tuple[float, str]:
        outputs = fresh_logits(subject.model, subject.x)
        distribution = (outputs >= 0).all(1) & ((outputs.sum(1) - 1).abs() < 1e-3)
        share = distribution.double().mean().item()
        return share, f"{share:.1%} of {len(outputs)} outputs are probabilities, not logits"


@dataclass(frozen=True, kw_only=True)
class RandomOutputs(Check):
    """Share of samples whose logits differ between two equal calls in evaluation mode (Athalye et al. 2018)."""

    advice: ClassVar[str] = (
        "The model draws random numbers, and an attack on one draw does not fit the next: use attack=autoattack_rand "
        "or attack=eot_pgd, which attack the mean of many draws."
    )
    reference: ClassVar[str] = "Athalye et al. 2018; Croce & Hein 2020; Pintor et al. 2022 (unstable predictions)"

    def measure(self, subject: Subject) -> tuple[float, str]:
        first, second = (fresh_logits(subject.model, subject.x) for _ in range(2))
        differs = (first - second).abs().amax(1) > TOLERANCE * first.abs().amax()
        share = differs.double().mean().item()
        return share, f"the logits of {share:.1%} of {len(differs)} samples differ between two equal calls"


@dataclass(frozen=True, kw_only=True)
class TrainingMode(Check):
    """Share of modules in training mode as handed over, or batch norms without running statistics."""

    advice: ClassVar[str] = (
        "Call model.eval(), and give batch norms running statistics. The evaluation itself runs in evaluation mode; "
        "what is used in training mode is another model: dropout is random, and a prediction depends on its batch."
    )
    reference: ClassVar[str] = "Carlini et al. 2019, On evaluating adversarial robustness"

    def measure(self, subject: Subject) -> tuple[float, str]:
        modules = list(subject.model.modules())
        training = [m for m in modules if m.training or (isinstance(m, _BatchNorm) and m.running_mean is None)]
        share = len(training) / len(modules)
        names = ", ".join(sorted({type(module).__name__ for module in training}))
        return share, f"{len(training)} of {len(modules)} modules are in training mode{names and f' ({names})'}"
