"""Where bounds are easily a little too tight, or of another network: rounding, kinks, jumps, changes in place."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xrobust.certification import (
    CROWN,
    CROWNIBP,
    IBP,
    AlphaCROWN,
    BranchAndBound,
    UnsupportedOperation,
    crown_bounds,
    gradient_bounds,
    input_box,
    interval_bounds,
    trace,
)
from xrobust.errors import UserError
from xrobust.threat import ThreatModel

FIRST = torch.tensor([0])


def linear(weight: list[list[float]], bias: list[float]) -> nn.Linear:
    layer = nn.Linear(len(weight[0]), len(weight)).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight, dtype=torch.float64))
        layer.bias.copy_(torch.tensor(bias, dtype=torch.float64))
    return layer


class FromFunction(nn.Module):
    """Logits of flattened images as a function of them, scaled."""

    def __init__(self, function, scale: float = 1.0):
        super().__init__()
        self.function, self.scale = function, scale
        self.relu = nn.ReLU(inplace=True)
        self.b = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x.flatten(1)) * self.scale


def changed_and_used(self: FromFunction, x: Tensor) -> Tensor:
    h = self.b(x - 0.5)
    return self.b(self.relu(h)) + h


def changed_and_returned(self: FromFunction, x: Tensor) -> Tensor:
    h = 0.7 - x
    self.relu(h)
    return h


def changed_by_its_view(self: FromFunction, x: Tensor) -> Tensor:
    h = self.b(x)
    h.view(-1, 2, 2).relu_()
    return h


@pytest.mark.parametrize("scale", [1.0, 1e-6])
@pytest.mark.parametrize("function", [changed_and_used, changed_and_returned, changed_by_its_view])
def test_a_value_that_is_used_after_a_change_in_place_is_refused(function, scale: float) -> None:
    with pytest.raises(UnsupportedOperation, match="change in place"):
        trace(FromFunction(function, scale).eval(), torch.rand(1, 2, 2))


def test_a_change_in_place_that_nothing_else_sees_is_no_problem() -> None:
    model = FromFunction(lambda self, x: self.b(self.relu(self.b(x)))).eval()
    x = torch.rand(5, 1, 2, 2)
    torch.testing.assert_close(trace(model, x[0]).network().values(x)[-1], model(x))


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda self, x: x * torch.max(x, 1, keepdim=True)[0], "max"),
        (lambda self, x: x * (1 + 1e-4 * x.argmax().item()), "argmax"),
        (lambda self, x: F.dropout(x, 1e-4, True), "training=True"),
        (lambda self, x: torch.cat(x.chunk(2, 1), 1), "chunk"),
        (lambda self, x: F.avg_pool2d(x.view(-1, 1, 2, 2), 2, divisor_override=-4).flatten(1), "divisor_override"),
    ],
)
def test_what_depends_on_the_image_is_no_constant(function, words: str) -> None:
    with pytest.raises(UserError, match=words):
        trace(FromFunction(function).eval(), torch.rand(1, 2, 2))


@pytest.mark.parametrize("scale", [1.0, 1e-6])
def test_a_hook_is_refused(scale: float) -> None:
    model = nn.Sequential(nn.Flatten(), linear([[scale, 0.0]], [0.0]))
    model[1].register_forward_hook(lambda module, args, out: out * 10)
    with pytest.raises(UnsupportedOperation, match="hook"):
        trace(model, torch.rand(1, 1, 2).double())


def test_the_number_of_images_in_a_shape_is_refused() -> None:
    with pytest.raises(UserError, match="does not compute"):
        trace(FromFunction(lambda self, x: x.view(3, -1)), torch.rand(1, 2, 2))


@pytest.mark.parametrize("certifier", [IBP, CROWN])
@pytest.mark.parametrize("image", [255 * torch.rand(2, 1, 2, 2), torch.tensor([-0.1, 0.5, 0.5, 0.5]).view(1, 1, 2, 2)])
def test_images_outside_of_the_pixel_range_are_refused(certifier, image: Tensor) -> None:
    model, threat = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), ThreatModel("linf", "0.1")
    labels = torch.zeros(len(image), dtype=torch.long)
    with pytest.raises(UserError, match=r"images must lie in \[0, 1\]"):
        certifier(threat=threat).certify(model, image, labels)
    with pytest.raises(UserError, match=r"images must lie in \[0, 1\]"):
        gradient_bounds(model, image, labels, threat)


@pytest.mark.parametrize("eps", ["8/255", "0.3"])
def test_the_input_box_holds_what_an_attack_returns(eps: str) -> None:
    threat = ThreatModel("linf", eps)
    x = torch.cat([torch.arange(256) / 255, torch.rand(20_000)]).view(-1, 1, 1, 1)
    box = input_box(threat, x)
    for far in (torch.full_like(x, -1), torch.full_like(x, 2)):
        assert box.contains(threat.project(far, x)).all()


def test_intervals_after_a_tightened_unit_allow_for_rounding() -> None:
    """A mean over many pixels, whose rounding decides the sign of a preactivation; the truth is in fractions."""
    side, x_value, shift = 256, 0.1234567, -1e-17
    model = nn.Sequential(
        nn.Conv2d(1, 1, 1), nn.ReLU(), nn.AvgPool2d(side), nn.Flatten(), nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 2)
    ).double()
    x = torch.full((1, 1, side, side), x_value, dtype=torch.float64)
    x[..., 0, 0] = 0.0  # the unstable unit
    threat = ThreatModel("linf", "1e-16")
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        model[0].bias.fill_(shift)
        exact = (Fraction(x_value) + Fraction(shift)) * (side**2 - 1) / side**2
        rounded = Fraction(model[:4](x).item())
        sign = 1 if exact > rounded else -1
        threshold = float((exact + rounded) / 2)
        model[4].weight.fill_(sign)
        model[4].bias.fill_(-sign * threshold)
        truth = sign * exact - sign * Fraction(threshold)
        assert truth > 0
        network = trace(model, x[0]).network()
        box = crown_bounds(interval_bounds(network, input_box(threat, x), rounding=True)).boxes[5]
        assert Fraction(box.lower.item()) <= truth <= Fraction(box.upper.item())
        slope = 1e6
        model[6].weight.copy_(torch.tensor([[-slope], [0.0]]))
        model[6].bias.copy_(torch.tensor([slope * float(truth) / 2, 0.0]))
    assert Fraction(model[6].bias[0].item()) - Fraction(slope) * truth < 0  # so class 0 is wrong at x itself
    for certifier in (CROWNIBP, CROWN):
        assert not certifier(threat=threat).certify(model, x, FIRST).certified.any()
    gradient = gradient_bounds(model, x, FIRST, threat, preactivations="crown")
    assert gradient.contains(torch.full_like(x, -slope * sign / side**2), slack=1e-9).all()


def test_a_leaky_slope_that_float32_rounds_down_certifies_nothing() -> None:
    model = nn.Sequential(
        nn.Flatten(), linear([[200.0]], [-100.0]), nn.LeakyReLU(0.01), linear([[1.0], [0.0]], [0.8 - 1e-8, 0.0])
    )
    x, threat = torch.full((1, 1, 1, 1), 0.4, dtype=torch.float64), ThreatModel("linf", "0.3")
    assert model(torch.full_like(x, 0.1)).argmax(1) == 1
    for certifier in (AlphaCROWN(threat=threat), BranchAndBound(threat=threat)):
        assert not certifier.certify(model, x, FIRST).certified.any()


def test_softplus_jumps_where_pytorch_leaves_its_formula() -> None:
    model = nn.Sequential(
        nn.Flatten(), linear([[1.0]], [19.5]), nn.Softplus(), linear([[1.0], [0.0]], [-20 - 1e-9, 0.0])
    )
    x, threat = torch.full((1, 1, 1, 1), 0.5 - 1e-10, dtype=torch.float64), ThreatModel("linf", "1.5e-10")
    assert model(x).argmax(1) == 0 and model(x + 1.1e-10).argmax(1) == 1
    for certifier in (IBP, CROWN):
        assert not certifier(threat=threat).certify(model, x, FIRST).certified.any()
    gradient = gradient_bounds(model, x, FIRST, threat)
    for slope in (torch.sigmoid(torch.tensor(20.0).double()).item(), 1.0):
        assert gradient.contains(torch.full_like(x, slope)).all()


def test_a_batch_norm_whose_shift_cancels_allows_for_its_rounding() -> None:
    norm = nn.BatchNorm1d(16).eval()
    with torch.no_grad():
        norm.running_mean.copy_(1e4 * torch.rand(16))  # type: ignore[union-attr]
        norm.running_var.uniform_(0.3, 3)  # type: ignore[union-attr]
        norm.weight.uniform_(0.5, 2)
        norm.bias.copy_(norm.running_mean * norm.weight * torch.rsqrt(norm.running_var + norm.eps))  # type: ignore[operator]
    model = nn.Sequential(nn.Flatten(), norm, nn.ReLU(), nn.Linear(16, 3)).eval()
    x = torch.rand(20, 1, 4, 4)
    with torch.no_grad():
        box = interval_bounds(trace(model, x[0]).network(), input_box(ThreatModel("linf", 0), x), rounding=True).boxes[
            2
        ]
        exact = model.double()[:2](x.double())
    assert ((box.lower.double() <= exact) & (exact <= box.upper.double())).all()
