"""Explanation metrics of a network of one's own: any module from images in [0, 1] to logits will do."""

from __future__ import annotations

import torch
from plain_loop import digits
from torch import nn

from xrobust.attacks import PGD
from xrobust.attributions import Gradient, IntegratedGradients
from xrobust.explanation import measure
from xrobust.metrics import DeletionAUC, GiniIndex, Probe, TopKIntersection
from xrobust.threat import ThreatModel

x_train, y_train, x, y = digits()
torch.manual_seed(0)
model = nn.Sequential(nn.Flatten(), nn.Linear(64, 100), nn.GELU(), nn.Linear(100, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
for _ in range(100):
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x_train), y_train).backward()
    optimizer.step()

threat = ThreatModel("linf", 0.05)
attributions = {"gradient": Gradient(), "integrated_gradients": IntegratedGradients(steps=20)}
metrics = {"gini_index": GiniIndex(), "deletion_auc": DeletionAUC(), "topk_adversarial": TopKIntersection()}
probe = Probe(
    model=model.eval(),
    x=x[:50],
    y=y[:50],
    index=torch.arange(50),
    method=Gradient(),
    threat=threat,
    attack=PGD(threat=threat, steps=10),
)
for found in measure([probe], attributions, metrics):
    print(f"{found.key:<55} {found.mean:.3f} {'↑' if found.higher_is_better else '↓'}")
