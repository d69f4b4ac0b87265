"""The share of images that stand at larger and larger radii; a bundle may be given on the command line.

The worst of two attacks counts for each image; one that fell stays fallen, so the curve can only go down. A bundle must
be for the same digits, as that of `python train.py data=digits`.
"""

from __future__ import annotations

import sys

from plain_loop import digits, trained

import xrobust
from xrobust.attacks import APGD, PGD, WorstOf
from xrobust.evaluation import Ladder, evaluate
from xrobust.threat import ThreatModel

threat = ThreatModel("linf", 0.2)
model = trained(PGD(threat=threat, steps=5)) if len(sys.argv) < 2 else xrobust.load(sys.argv[1])
_, _, x, y = digits()
apgd, pgd = APGD(threat=threat, steps=20), PGD(threat=threat, steps=20, loss="margin", keep="worst")
ladder = Ladder(WorstOf(threat=threat, attacks={"apgd": apgd, "margin": pgd}), eps=[0.05, 0.1, 0.15])

evaluation = evaluate(model, x[:200], y[:200], [ladder])
print(f"ε = 0: {evaluation.clean.mean():.1%}")
for rung, attack in enumerate(ladder.rungs):
    print(f"ε = {attack.threat.written_eps}: {evaluation.standing(0, rung).mean():.1%}")
