"""How good a model's explanations are: every metric for every attribution, beside references, and what they answer."""

from xrobust.explanation.card import explanation_card
from xrobust.explanation.checklist import CHECKLIST, Point
from xrobust.explanation.measurement import Measurement
from xrobust.explanation.panel import first_images, panel_data
from xrobust.explanation.references import reference_measurements
from xrobust.explanation.run import answer
from xrobust.explanation.suite import check_attributions, check_needs, check_plan, measure, out_of_reach, plan

__all__ = [
    "CHECKLIST",
    "Measurement",
    "Point",
    "answer",
    "check_attributions",
    "check_needs",
    "check_plan",
    "explanation_card",
    "first_images",
    "measure",
    "out_of_reach",
    "panel_data",
    "plan",
    "reference_measurements",
]
