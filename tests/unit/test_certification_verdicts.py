"""Branch and bound against exhaustive enumeration, ties, NaN, counter-examples, budgets, cascades."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from itertools import combinations, pairwise, product

import pytest
import torch
from torch import Tensor, nn

from xrobust.attacks import PGD
from xrobust.certification import (
    CROWN,
    CROWNIBP,
    IBP,
    STATUSES,
    AlphaCROWN,
    BranchAndBound,
    Cascade,
    Certificate,
    Certifier,
    Falsifier,
)
from xrobust.certification.problem import Problem
from xrobust.errors import UserError
from xrobust.threat import ThreatModel

THREAT = ThreatModel("linf", "0.2")
UNKNOWN, CERTIFIED, FALSIFIED, TIMEOUT = range(4)
INSTANCES, NETWORKS = 500, 5
HIDDEN, SECOND = 4, 3


def network(seed: int, negative: float = 0.0) -> nn.Module:
    """3 inputs, two hidden layers, 3 classes that are about equally frequent."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Flatten(),
        nn.Linear(3, HIDDEN),
        nn.LeakyReLU(negative) if negative else nn.ReLU(),
        nn.Linear(HIDDEN, SECOND),
        nn.LeakyReLU(negative) if negative else nn.ReLU(),
        nn.Linear(SECOND, 3),
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 2.5
        model[-1].bias -= model(torch.rand(500, 1, 1, 3)).mean(0)
    return model.eval()


def least_margins(model: nn.Module, x: Tensor, y: Tensor, negative: float = 0.0) -> Tensor:
    """The exact min over the box of min_j z_y − z_j, by enumeration of the patterns of the first layer: (N,).

    A piecewise linear function has its minimum at a corner of a piece: where three planes meet, each a side of the box,
    a kink of the first layer, or, under one of its patterns, a kink of the second. The network itself is evaluated at
    every such point in the box.
    """
    model = copy.deepcopy(model).double()
    x = x.double().flatten(1)
    low, high = (x - THREAT.radius).clamp(min=0), (x + THREAT.radius).clamp(max=1)
    first, second = model[1], model[3]
    least = torch.full((len(x),), torch.inf, dtype=torch.float64)
    for pattern in product((negative, 1.0), repeat=HIDDEN):
        slopes = torch.tensor(pattern, dtype=torch.float64)
        matrix = second.weight @ (slopes.unsqueeze(1) * first.weight)
        offset = second.weight @ (slopes * first.bias) + second.bias
        planes = torch.cat([torch.eye(3), torch.eye(3), first.weight, matrix]).double()
        heights = torch.cat([low, high, -first.bias.expand(len(x), -1), -offset.expand(len(x), -1)], 1)
        chosen = torch.tensor(list(combinations(range(len(planes)), 3)))
        chosen = chosen[torch.linalg.det(planes[chosen]).abs() > 1e-12]
        points = torch.einsum("tij,ntj->nti", torch.linalg.inv(planes[chosen]), heights[:, chosen])
        inside = ((points >= low[:, None] - 1e-12) & (points <= high[:, None] + 1e-12)).all(2)
        logits = model(points.flatten(0, 1)).unflatten(0, inside.shape)
        own = logits.gather(2, y.view(-1, 1, 1).expand(-1, len(chosen), 1))
        margin = (own - logits).masked_fill(nn.functional.one_hot(y, 3).bool()[:, None], torch.inf).amin(2)
        least = torch.minimum(least, margin.masked_fill(~inside, torch.inf).amin(1))
    return least


@pytest.mark.parametrize(
    ("settings", "negative"),
    [
        ({"attack": PGD(threat=THREAT, steps=10, keep="worst")}, 0.0),
        ({"steps": 0, "root_steps": 0, "width": 3}, 0.0),  # without optimisation, most parts end as linear programs
        ({"steps": 0, "root_steps": 0}, 0.1),
    ],
    ids=["with attack", "without optimisation", "leaky"],
)
@torch.no_grad()
def test_branch_and_bound_agrees_with_exhaustive_enumeration(settings: dict, negative: float) -> None:
    certifier = BranchAndBound(threat=THREAT, batch_size=INSTANCES, **settings)
    work, verdicts = 0, torch.zeros(len(STATUSES), dtype=torch.int64)
    for seed in range(NETWORKS):
        model = network(seed, negative)
        x = torch.rand(INSTANCES // NETWORKS, 1, 1, 3)
        y = model(x).argmax(1)
        exact = least_margins(model, x, y, negative)
        certificate = certifier.certify(model, x, y)
        decidable = exact.abs() > 1e-6
        assert torch.equal(certificate.certified[decidable], (exact > 0)[decidable])
        assert torch.equal((certificate.status == FALSIFIED)[decidable], (exact < 0)[decidable])
        assert (certificate.margin <= exact + 1e-9).all()
        work += int(certificate.work.sum())
        verdicts += certificate.status.bincount(minlength=len(STATUSES))
    assert verdicts[CERTIFIED] >= 30 and verdicts[FALSIFIED] >= 100 and verdicts[TIMEOUT] == 0
    assert work > 20  # there was something to split


def tied() -> nn.Module:
    """Both logits are always equal."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        model[3].weight[1] = model[3].weight[0]
        model[3].bias.zero_()
    return model.eval()


EVERY: dict[str, Certifier] = {
    "ibp": IBP(threat=THREAT),
    "crown_ibp": CROWNIBP(threat=THREAT),
    "crown": CROWN(threat=THREAT),
    "alpha_crown": AlphaCROWN(threat=THREAT, steps=3),
    "bab": BranchAndBound(threat=THREAT, max_domains=50),
}


@pytest.mark.parametrize("name", EVERY)
def test_a_tie_is_never_certified(name: str) -> None:
    x = torch.rand(20, 1, 2, 2)
    certificate = EVERY[name].certify(tied(), x, torch.zeros(20, dtype=torch.int64))  # argmax says 0
    assert not certificate.certified.any() and (certificate.margin <= 0).all()


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("bad", [torch.nan, 1e300])
def test_what_is_not_finite_is_never_certified(name: str, bad: float) -> None:
    model, x = network(0).double(), torch.rand(10, 1, 1, 3)
    y = model(x.double()).argmax(1)
    with torch.no_grad():
        model[1].weight[0, 0] = bad
        model[3].weight[0, 0] = bad
    certificate = EVERY[name].certify(model, x, y)
    assert not certificate.certified.any()


def test_radius_zero_certifies_what_is_right_and_falsifies_the_rest() -> None:
    model, x = network(1), torch.rand(200, 1, 1, 3)
    y = torch.randint(0, 3, (200,))
    right = model(x).argmax(1) == y
    for certifier in EVERY.values():
        certificate = replace(certifier, threat=ThreatModel("linf", 0)).certify(model, x, y)
        assert torch.equal(certificate.certified, right)
        assert torch.equal(certificate.status == FALSIFIED, ~right)
        torch.testing.assert_close(certificate.counter_example[~right], x[~right])


def test_dearer_certifiers_never_know_less_and_shrink_with_the_radius() -> None:
    model, x = network(2), torch.rand(100, 1, 1, 3)
    y = model(x).argmax(1)
    before = None
    for eps in ("0.02", "0.05", "0.1", "0.2"):
        margins = [
            replace(EVERY[name], threat=ThreatModel("linf", eps)).certify(model, x, y).margin
            for name in ("ibp", "crown_ibp", "crown", "alpha_crown")
        ]
        for cheap, dear in pairwise(margins):
            assert (cheap <= dear).all()
        if before is not None:
            assert (margins[0] <= before).all()  # intervals are monotone in ε
        before = margins[0]


def test_a_cascade_gives_the_best_verdict_and_says_whose_it_is() -> None:
    model, x = network(3), torch.rand(200, 1, 1, 3)
    y = model(x).argmax(1)
    members: dict[str, Certifier] = {
        "ibp": EVERY["ibp"],
        "falsifier": Falsifier(threat=THREAT, attack=PGD(threat=THREAT, steps=10, keep="worst")),
        "crown": EVERY["crown"],
        "bab": BranchAndBound(threat=THREAT),
    }
    certificate = Cascade(threat=THREAT, certifiers=members).certify(model, x, y)
    assert torch.equal(certificate.certified, members["bab"].certify(model, x, y).certified)
    assert not certificate.open.any()
    by_intervals = members["ibp"].certify(model, x, y).certified
    assert (certificate.member[by_intervals] == 0).all() and 0 < by_intervals.sum() < certificate.certified.sum()
    assert (certificate.status[certificate.member == 1] == FALSIFIED).all() and (certificate.member == 1).any()
    falsified = certificate.status == FALSIFIED
    images = certificate.counter_example[falsified]
    assert THREAT.contains(images, x[falsified]).all() and (model(images).argmax(1) != y[falsified]).all()
    assert certificate.counter_example[~falsified].isnan().all()


def test_verdicts_do_not_depend_on_the_batch_or_the_order() -> None:
    model, x = network(4), torch.rand(20, 1, 1, 3)
    y = model(x).argmax(1)
    certifier = BranchAndBound(threat=THREAT, batch_size=20, width=2, steps=5, root_steps=5)
    whole = certifier.certify(model, x, y)
    parts = replace(certifier, batch_size=7, chunk=50).certify(model, x.flip(0), y.flip(0))
    assert torch.equal(parts.status.flip(0), whole.status) and torch.equal(parts.work.flip(0), whole.work)
    torch.testing.assert_close(parts.margin.flip(0), whole.margin)


def test_a_spent_budget_is_a_timeout() -> None:
    full = BranchAndBound(threat=THREAT, width=1, steps=0, root_steps=0)
    timeouts = 0
    for seed in range(NETWORKS):
        model, x = network(seed), torch.rand(40, 1, 1, 3)
        y = model(x).argmax(1)
        work = full.certify(model, x, y).work
        for limit in ({"max_domains": 2}, {"seconds": 0.0}):
            certificate = replace(full, **limit).certify(model, x, y)
            spent = certificate.status == TIMEOUT
            assert (work[spent] > 2).all() and (certificate.margin[spent] <= 0).all()
            assert (certificate.work <= 2).all()
            timeouts += int(spent.sum())
    assert timeouts > 0


def test_smooth_networks_are_certified_where_linear_bounds_suffice_and_stay_open_elsewhere() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 3)).eval()
    x = torch.rand(100, 1, 1, 3)
    y = model(x).argmax(1)
    certificate = BranchAndBound(threat=THREAT).certify(model, x, y)
    crown = EVERY["crown"].certify(model, x, y)
    assert (certificate.certified >= crown.certified).all() and crown.certified.any()


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_precision_is_that_of_the_bounds(precision: str) -> None:
    model, x = network(1), torch.rand(50, 1, 1, 3)
    y = model(x).argmax(1)
    certificate = replace(EVERY["crown"], precision=precision).certify(model, x, y)
    exact = EVERY["crown"].certify(model.double(), x, y)
    assert (certificate.margin <= exact.margin + 1e-12).all()
    torch.testing.assert_close(certificate.margin, exact.margin, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: IBP(threat=ThreatModel("l2", 1)), "threat.norm must be one of 'linf', got 'l2'"),
        (lambda: IBP(threat=THREAT, precision="float16"), "IBP.precision must be one of"),
        (lambda: CROWN(threat=THREAT, slope="steep"), "CROWN.slope must be one of 'adaptive', 'parallel'"),
        (lambda: BranchAndBound(threat=THREAT, max_domains=0), "BranchAndBound.max_domains"),
        (
            lambda: BranchAndBound(threat=THREAT, attack=PGD(threat=ThreatModel("linf", 0.1))),
            "attack is for linf ε=0.1",
        ),
        (lambda: Cascade(threat=THREAT, certifiers={}), "at least one member"),
        (lambda: Cascade(threat=THREAT, certifiers={"a": IBP(threat=ThreatModel("linf", 0.1))}), "certifiers.a is for"),
        (lambda: AlphaCROWN(threat=THREAT, steps=-1), "AlphaCROWN.steps"),
    ],
)
def test_mistakes_are_explained(make, words: str) -> None:
    with pytest.raises(UserError, match=words):
        make()


@dataclass(frozen=True, kw_only=True)
class Reckless(Certifier):
    """Says what its bounds do not."""

    status: int

    def run(self, problem: Problem) -> Certificate:
        certificate = Certificate.of_margins(problem.x, problem.bound_by_intervals())
        certificate.status.fill_(self.status)
        certificate.counter_example.copy_(problem.x)
        return certificate


@pytest.mark.parametrize("status", [CERTIFIED, FALSIFIED])
def test_a_verdict_without_its_reason_is_an_error(status: int) -> None:
    x = torch.rand(5, 1, 2, 2)
    with pytest.raises(RuntimeError, match=r"without a positive bound|counter-example that is none"):
        Reckless(threat=THREAT, status=status).certify(tied(), x, torch.zeros(5, dtype=torch.int64))
