"""Training methods: one Lightning module a method."""

from xrobust.defenses.adversarial import AdversarialTraining
from xrobust.defenses.alp import ALP
from xrobust.defenses.base import Loss, RobustClassifier
from xrobust.defenses.free_at import FreeAdversarialTraining
from xrobust.defenses.grad_align import GradAlign
from xrobust.defenses.gradient_regularized import GradientRegularized
from xrobust.defenses.hat import HAT
from xrobust.defenses.mart import MART
from xrobust.defenses.multi_threat import MultiThreatTraining
from xrobust.defenses.n_fgsm import NFGSM
from xrobust.defenses.optimization import Optimization
from xrobust.defenses.pgd_at import PGDAdversarialTraining
from xrobust.defenses.score import SCORE
from xrobust.defenses.standard import StandardTraining
from xrobust.defenses.trades import TRADES

__all__ = [
    "ALP",
    "HAT",
    "MART",
    "NFGSM",
    "SCORE",
    "TRADES",
    "AdversarialTraining",
    "FreeAdversarialTraining",
    "GradAlign",
    "GradientRegularized",
    "Loss",
    "MultiThreatTraining",
    "Optimization",
    "PGDAdversarialTraining",
    "RobustClassifier",
    "StandardTraining",
]
