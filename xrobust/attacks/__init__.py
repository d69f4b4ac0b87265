"""Attacks: (model, x, y) → x_adv inside a threat model."""

from xrobust.attacks.apgd import APGD, APGDTargeted
from xrobust.attacks.attribution import AttributionAttack, Explanation
from xrobust.attacks.base import Attack, logits_of
from xrobust.attacks.carlini_wagner import CarliniWagnerL2
from xrobust.attacks.ddn import DDN
from xrobust.attacks.deepfool import DeepFool
from xrobust.attacks.eot import EOT
from xrobust.attacks.fab import FAB
from xrobust.attacks.fgsm import FGSM
from xrobust.attacks.fmn import FMN
from xrobust.attacks.mass_centre import MassCentreAttack, mass_centre
from xrobust.attacks.minimum_norm import MinimumNorm
from xrobust.attacks.noise import GaussianNoise, UniformNoise
from xrobust.attacks.pgd import PGD
from xrobust.attacks.rfgsm import RFGSM
from xrobust.attacks.softplus import smoothed
from xrobust.attacks.square import Square
from xrobust.attacks.target_map import FixedMap, HalfTurn, TargetMapAttack
from xrobust.attacks.topk import TopKAttack
from xrobust.attacks.transfer import Transfer
from xrobust.attacks.worst_of import Stage, WorstOf

__all__ = [
    "APGD",
    "DDN",
    "EOT",
    "FAB",
    "FGSM",
    "FMN",
    "PGD",
    "RFGSM",
    "APGDTargeted",
    "Attack",
    "AttributionAttack",
    "CarliniWagnerL2",
    "DeepFool",
    "Explanation",
    "FixedMap",
    "GaussianNoise",
    "HalfTurn",
    "MassCentreAttack",
    "MinimumNorm",
    "Square",
    "Stage",
    "TargetMapAttack",
    "TopKAttack",
    "Transfer",
    "UniformNoise",
    "WorstOf",
    "logits_of",
    "mass_centre",
    "smoothed",
]
