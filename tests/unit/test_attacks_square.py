"""The Square attack: no gradients, more queries help, every norm and shape of image."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from xrobust.attacks import Square, UniformNoise
from xrobust.attacks.square_moves import BumpMoves, StripeMoves, bump
from xrobust.errors import UserError
from xrobust.randomness import SampleStreams
from xrobust.threat import ThreatModel

THREATS = [ThreatModel("linf", "0.1"), ThreatModel("l2", "0.5"), ThreatModel("l1", "1.5")]


class Watched(nn.Module):
    """Counts the queries and refuses to be differentiated."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model, self.queries = model, 0

    def forward(self, x: Tensor) -> Tensor:
        assert not x.requires_grad and not torch.is_grad_enabled()
        self.queries += 1
        return self.model(x)


def standing(attack, model: nn.Module, x: Tensor, y: Tensor) -> int:
    x_adv = attack(model, x, y)
    assert attack.threat.contains(x_adv, x).all()
    with torch.no_grad():
        return int((model(x_adv).argmax(1) == y).sum())


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_more_queries_break_more_and_noise_breaks_less(threat, digits, digits_model) -> None:
    x, y = digits[0][:50], digits[1][:50]
    noise = standing(UniformNoise(threat=threat, draws=20), digits_model, x, y)
    few, many = (standing(Square(threat=threat, queries=q), digits_model, x, y) for q in (20, 400))
    assert many + 5 < few < noise


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_only_the_logits_are_asked_once_a_query(threat, digits, digits_model) -> None:
    x = digits[0][:8]
    with torch.no_grad():
        y = digits_model(x).argmax(1)
    model, attack = Watched(digits_model), Square(threat=threat.with_eps("0.001"), queries=30)
    x_adv = attack(model, x, y)
    assert model.queries == 1 + 1 + 30  # the image, the start, the changes
    with torch.no_grad():
        assert torch.equal(digits_model(x_adv).argmax(1), y)  # so that none was spared


@pytest.mark.parametrize("loss", ["margin", "cross_entropy"])
def test_targeted_search_reaches_its_class(loss, digits, digits_model) -> None:
    x, y = digits[0][:10], digits[1][:10]
    target = (y + 1) % 10
    attack = Square(threat=ThreatModel("linf", "0.4"), queries=300, loss=loss, targeted=True)
    assert (digits_model(attack(digits_model, x, target)).argmax(1) == target).sum() >= 9


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_a_sample_does_not_depend_on_its_batch(threat, digits, digits_model) -> None:
    x, y, model = digits[0][:8].double(), digits[1][:8], digits_model.double()
    attack = Square(threat=threat, queries=60)
    whole = attack(model, x, y, generator=SampleStreams(0, range(8)))
    alone = [attack(model, x[i : i + 1], y[i : i + 1], generator=SampleStreams(0, [i])) for i in range(8)]
    torch.testing.assert_close(torch.cat(alone), whole, rtol=0, atol=1e-9)


@pytest.mark.parametrize("threat", THREATS, ids=str)
@pytest.mark.parametrize("shape", [(3, 9, 5), (1, 1, 7), (3, 2, 2), (1, 32, 32)])
def test_images_of_any_shape(threat, shape) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(3, *shape, generator=generator)
    weight = torch.randn(x[0].numel(), 3, generator=generator)

    class Linear(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1) @ weight

    y = Linear()(x).argmax(1)
    x_adv = Square(threat=threat.with_eps("0.01"), queries=20)(Linear(), x, y)
    before, after = (Linear()(z).gather(1, y[:, None]) for z in (x, x_adv))
    assert x_adv.shape == x.shape and (after < before).any()


def test_the_square_shrinks_along_the_published_schedule() -> None:
    published = Square(threat=THREATS[0], queries=5000, rescale_schedule=False)
    for halvings, query in enumerate([10, 11, 51, 201, 501, 1001, 2001, 4001]):
        assert published.side(query, 100, 100) == round((0.8 / 2**halvings) ** 0.5 * 100)
    rescaled = Square(threat=THREATS[0], queries=100)
    assert rescaled.side(99, 100, 100) == published.side(9900, 100, 100) == round((0.8 / 512) ** 0.5 * 100)
    assert rescaled.side(99, 8, 8) == 1 and rescaled.side(0, 8, 1) == 1


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("side", [1, 3, 7])
def test_a_bump_has_unit_norm_and_a_mound_of_each_sign(p: int, side: int) -> None:
    pattern = bump(side, p)
    torch.testing.assert_close(pattern.norm(p=p), torch.tensor(1.0, dtype=torch.float64))
    assert (pattern[: side // 2] > 0).all() and (pattern[side // 2 :] < 0).all()
    assert pattern.abs().amax(1)[side // 4] == pattern.abs()[: side // 2 or 1].amax()


def test_a_linf_change_is_one_square_of_one_sign_for_each_channel() -> None:
    threat, x = ThreatModel("linf", "0.1"), torch.full((4, 2, 8, 8), 0.5)
    moves, generator = StripeMoves(threat), torch.Generator().manual_seed(0)
    start = moves.start(x, generator)
    assert torch.equal(start, start[:, :, :1].expand_as(start)) and ((start - x).abs() > 0.099).all()
    changed = moves.propose(x, x, torch.rand(4, moves.numbers(2), generator=generator), side=3) - x
    assert ((changed != 0).sum((2, 3)) == 9).all()
    torch.testing.assert_close(changed.sum((2, 3)).abs(), torch.full((4, 2), 0.9))


def test_an_l2_change_moves_the_norm_of_a_window() -> None:
    threat, x = ThreatModel("l2", "0.5"), torch.full((6, 1, 9, 9), 0.5)
    moves, generator = BumpMoves(threat), torch.Generator().manual_seed(0)
    best = moves.start(x, generator)
    assert (threat.distance(best, x) - 0.5).abs().max() < 1e-5
    changed = moves.propose(x, best, torch.rand(6, moves.numbers(1), generator=generator), side=3)
    assert (threat.distance(changed, x) - 0.5).abs().max() < 1e-5
    touched = ((changed - best).abs() > 1e-3).sum((1, 2, 3))
    assert (touched >= 5).all() and (touched <= 18).all()  # two windows of nine pixels


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"queries": 0}, "Square.queries must be an integer of at least 1, got 0"),
        ({"p_init": 0.0}, "Square.p_init must lie in"),
        ({"loss": "kl"}, "Square.loss must be one of"),
    ],
)
def test_wrong_values_are_refused(fields, message) -> None:
    with pytest.raises(UserError, match=message):
        Square(threat=THREATS[0], **fields)
