"""The saliency maps of two networks side by side: one saw clean images in training, the other adversarial ones."""

from __future__ import annotations

from matplotlib.figure import Figure
from plain_loop import digits, trained

from xrobust.attacks import PGD
from xrobust.attributions import Gradient
from xrobust.report.panel import show_image, show_map
from xrobust.threat import ThreatModel

_, _, x, y = digits()
x, y = x[:8], y[:8]
attack = PGD(threat=ThreatModel("linf", 0.15), steps=5)
maps = {name: Gradient()(trained(a), x, y) for name, a in {"standard": None, "adversarial": attack}.items()}

figure = Figure(figsize=(8, 3.2), layout="constrained")
axes = figure.subplots(3, 8)
for column in range(8):
    show_image(axes[0, column], x[column].numpy())
    for row, name in enumerate(maps, 1):
        show_map(axes[row, column], maps[name][column].numpy())
for row, name in enumerate(["image", *maps]):
    axes[row, 0].set_ylabel(name)
figure.savefig("saliency.png", dpi=150)
print("saliency.png")
