"""The radii in L2 that votes under noise certify, for a network that was trained under the same noise."""

from __future__ import annotations

from plain_loop import digits, trained
from torch import Tensor, nn

from xrobust.randomness import Generator, normal_like
from xrobust.smoothing import Certify, GaussianNoise

SIGMA = 0.25


def noisy(model: nn.Module, x: Tensor, y: Tensor, *, generator: Generator) -> Tensor:
    return x + SIGMA * normal_like(x, generator)


model = trained(noisy)
_, _, x, y = digits()
x, y = x[:30], y[:30]
certificate = Certify(noise=GaussianNoise(sigma=SIGMA), n=1000, alpha=0.001)(model, x)
right = certificate.prediction == y
for radius in (0.0, 0.25, 0.5):
    share = (right & (certificate.radius > radius)).double().mean()
    print(f"right, and the same class within {radius} in L2: {share:.0%} of the images")
