"""Training methods: one Lightning module a method."""

from xrobust.defenses.adversarial import AdversarialTraining
from xrobust.defenses.alp import ALP
from xrobust.defenses.base import Loss, RobustClassifier
from xrobust.defenses.certified import CertifiedTraining
from xrobust.defenses.consistency import Consistency
from xrobust.defenses.crown_ibp import CROWNIBPTraining
from xrobust.defenses.emma import EMMA
from xrobust.defenses.expressive import CCIBP, MTLIBP, ExpIBP
from xrobust.defenses.free_at import FreeAdversarialTraining
from xrobust.defenses.gaussian_smoothing import GaussianSmoothing
from xrobust.defenses.gloro import GloRo, GloRoTRADES
from xrobust.defenses.grad_align import GradAlign
from xrobust.defenses.gradient_regularized import GradientRegularized
from xrobust.defenses.hat import HAT
from xrobust.defenses.ibp import IBPTraining
from xrobust.defenses.lipschitz import LipschitzTraining
from xrobust.defenses.macer import MACER
from xrobust.defenses.mart import MART
from xrobust.defenses.multi_threat import MultiThreatTraining
from xrobust.defenses.n_fgsm import NFGSM
from xrobust.defenses.optimization import Optimization
from xrobust.defenses.pgd_at import PGDAdversarialTraining
from xrobust.defenses.sabr import SABR
from xrobust.defenses.score import SCORE
from xrobust.defenses.smooth_adv import SmoothAdv
from xrobust.defenses.smooth_mix import SmoothMix
from xrobust.defenses.standard import StandardTraining
from xrobust.defenses.taps import STAPS, TAPS
from xrobust.defenses.trades import TRADES
from xrobust.defenses.wong_kolter import WongKolter

__all__ = [
    "ALP",
    "CCIBP",
    "EMMA",
    "HAT",
    "MACER",
    "MART",
    "MTLIBP",
    "NFGSM",
    "SABR",
    "SCORE",
    "STAPS",
    "TAPS",
    "TRADES",
    "AdversarialTraining",
    "CROWNIBPTraining",
    "CertifiedTraining",
    "Consistency",
    "ExpIBP",
    "FreeAdversarialTraining",
    "GaussianSmoothing",
    "GloRo",
    "GloRoTRADES",
    "GradAlign",
    "GradientRegularized",
    "IBPTraining",
    "LipschitzTraining",
    "Loss",
    "MultiThreatTraining",
    "Optimization",
    "PGDAdversarialTraining",
    "RobustClassifier",
    "SmoothAdv",
    "SmoothMix",
    "StandardTraining",
    "WongKolter",
]
