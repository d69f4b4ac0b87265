"""Sound bounds of a network's outputs over balls of images, and certificates made of them."""

from xrobust.certification.alpha_crown import AlphaCROWN
from xrobust.certification.backward import Walk, interval_lower_bound, lower_bound
from xrobust.certification.base import Certifier
from xrobust.certification.bounds import Bounds, interval_bounds
from xrobust.certification.box import Box, input_box
from xrobust.certification.branch_and_bound import BranchAndBound
from xrobust.certification.cascade import Cascade
from xrobust.certification.certificate import STATUSES, Certificate
from xrobust.certification.crown import CROWN
from xrobust.certification.crown_ibp import CROWNIBP
from xrobust.certification.falsifier import Falsifier
from xrobust.certification.gradients import boundable_network, gradient_bounds, gradient_box
from xrobust.certification.graph import Graph, Network, batch_statistics
from xrobust.certification.ibp import IBP
from xrobust.certification.intermediate import crown_bounds
from xrobust.certification.lipschitz.certifier import Lipschitz
from xrobust.certification.lipschitz.margins import pairwise_constants, slopes
from xrobust.certification.lipschitz.power_iteration import PowerIteration
from xrobust.certification.rules.registry import UnsupportedOperation
from xrobust.certification.specification import margins, other_classes
from xrobust.certification.trace import trace

__all__ = [
    "CROWN",
    "CROWNIBP",
    "IBP",
    "STATUSES",
    "AlphaCROWN",
    "Bounds",
    "Box",
    "BranchAndBound",
    "Cascade",
    "Certificate",
    "Certifier",
    "Falsifier",
    "Graph",
    "Lipschitz",
    "Network",
    "PowerIteration",
    "UnsupportedOperation",
    "Walk",
    "batch_statistics",
    "boundable_network",
    "crown_bounds",
    "gradient_bounds",
    "gradient_box",
    "input_box",
    "interval_bounds",
    "interval_lower_bound",
    "lower_bound",
    "margins",
    "other_classes",
    "pairwise_constants",
    "slopes",
    "trace",
]
