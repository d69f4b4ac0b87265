"""Training methods: one Lightning module a method."""

from xrobust.defenses.base import Loss, RobustClassifier
from xrobust.defenses.pgd_at import PGDAdversarialTraining
from xrobust.defenses.standard import StandardTraining

__all__ = ["Loss", "PGDAdversarialTraining", "RobustClassifier", "StandardTraining"]
