"""What three certifiers prove about the same images of the same network: the tighter the bound, the more it costs."""

from __future__ import annotations

from plain_loop import digits, trained

from xrobust.attacks import PGD
from xrobust.certification import CROWN, IBP, AlphaCROWN
from xrobust.threat import ThreatModel

model = trained(PGD(threat=ThreatModel("linf", 0.15), steps=5))
_, _, x, y = digits()
x, y = x[:30], y[:30]
for eps in (0.03, 0.1):
    threat = ThreatModel("linf", eps)
    for certifier in (IBP(threat=threat), CROWN(threat=threat), AlphaCROWN(threat=threat)):
        found = certifier.certify(model, x, y)
        proven, margin = (found.margin > 0).double().mean(), found.margin.nanmedian()
        name, seconds = type(certifier).__name__, found.seconds.sum()
        print(f"ε = {eps}, {name:>10}: {proven:.0%} certified, margins of {margin:.2f} (median), {seconds:.2f} s")
