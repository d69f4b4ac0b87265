"""The contract of every certifier in conf/certifier."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from conf_walk import built_certifier, choices
from torch import Tensor, nn

from xrobust.attacks import PGD
from xrobust.certification import Certificate, Certifier
from xrobust.randomness import SampleStreams
from xrobust.threat import ThreatModel

THREAT = ThreatModel("linf", "0.02")
THREATS = {"linf": THREAT, "l2": ThreatModel("l2", "0.05"), "l1": ThreatModel("l1", "0.1")}
Network = nn.Module


class Small(nn.Module):
    """A residual network with batch norm and pooling, small enough for every certifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 3, 3, 2, 1), nn.BatchNorm2d(3)
        self.inner, self.pool = nn.Conv2d(3, 3, 3, 1, 1), nn.AvgPool2d(2)
        self.head = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.norm(self.stem(x)))
        return self.head(self.pool(h + torch.relu(self.inner(h))).flatten(1))


def check_sound(certifier: Certifier, model: Network, x: Tensor, y: Tensor) -> None:
    certificate = certifier.certify(model, x, y)
    assert certificate.status.shape == certificate.margin.shape == (len(x),)
    proven = certificate.certified
    attack = PGD(threat=certifier.threat, steps=20, keep="worst", restarts=2)
    x_adv = attack(model, x, y)
    assert (model.eval()(x_adv).argmax(1)[proven] == y[proven]).all()
    logits = model(x_adv)
    margin = (logits.gather(1, y[:, None]) - logits).scatter(1, y[:, None], torch.inf).amin(1)
    assert (certificate.margin <= margin + 1e-5).all()


def check_ties(certifier: Certifier, model: Network, x: Tensor, y: Tensor) -> None:
    """All logits equal, in every image: nothing is certified."""
    tied = Small().eval()
    nn.init.zeros_(tied.head.weight)
    nn.init.zeros_(tied.head.bias)
    certificate = certifier.certify(tied, x, torch.zeros_like(y))
    assert not certificate.certified.any()


def check_misclassified(certifier: Certifier, model: Network, x: Tensor, y: Tensor) -> None:
    wrong = (model.eval()(x).argmax(1) + 1) % 10
    certificate = certifier.certify(model, x, wrong)
    assert not certificate.certified.any()


def check_exact_without_radius(certifier: Certifier, model: Network, x: Tensor, y: Tensor) -> None:
    still = at_radius(certifier, certifier.threat.with_eps(0))
    right = model.eval()(x).argmax(1) == y
    proven = still.certify(model, x, y).certified
    assert not (proven & ~right).any()
    assert torch.equal(proven, right) or not proven.any()  # a falsifier alone certifies nothing


def check_no_trace(certifier: Certifier, model: Network, x: Tensor, y: Tensor) -> None:
    model.train()
    modes = [m.training for m in model.modules()]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rng, before = torch.get_rng_state(), x.clone()
    with torch.inference_mode():
        inside = certifier.certify(model, x, y)
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), rng) and torch.equal(x, before)
    assert torch.equal(inside.status, certifier.certify(model, x, y).status)


def check_sample_streams(certifier: Certifier, model: Network, x: Tensor, y: Tensor) -> None:
    whole = certifier.certify(model, x, y, generator=SampleStreams(0, range(len(x))))
    single = replace(certifier, batch_size=1)
    order = torch.arange(len(x)).flip(0)
    parts = single.certify(model, x[order], y[order], generator=SampleStreams(0, order.tolist()))
    assert torch.equal(parts.status[order], whole.status)
    finite = whole.margin.isfinite()
    torch.testing.assert_close(parts.margin[order][finite], whole.margin[finite])


CHECKS: list[Callable] = [
    check_sound,
    check_ties,
    check_misclassified,
    check_exact_without_radius,
    check_no_trace,
    check_sample_streams,
]


def at_radius(certifier: Certifier, threat: ThreatModel) -> Certifier:
    """The certifier and all it is made of, for another threat model."""
    changes: dict = {"threat": threat}
    for name, value in vars(certifier).items():
        if name == "attack" and value is not None:
            changes[name] = replace(value, threat=threat)
        elif isinstance(value, dict):
            changes[name] = {key: at_radius(member, threat) for key, member in value.items()}
        elif name in ("max_domains", "steps"):
            changes[name] = min(value, 20)
    return replace(certifier, **changes)


@pytest.fixture(scope="module")
def trained() -> tuple[Network, Tensor, Tensor]:
    from sklearn.datasets import load_digits

    data = load_digits()
    x, y = torch.from_numpy(data.images).float().unsqueeze(1) / 16, torch.from_numpy(data.target).long()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Small()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for _ in range(3):
            for rows in torch.arange(len(x)).split(100):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
                optimizer.step()
    optimizer.zero_grad()
    return model.eval(), x[:6], y[:6]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", choices("certifier"))
def test_certifier_keeps_the_contract(name: str, check: Callable, trained: tuple[Network, Tensor, Tensor]) -> None:
    certifier = built_certifier(name)
    check(at_radius(certifier, THREATS[certifier.threat.norm]), *trained)


@dataclass(frozen=True, kw_only=True)
class Faulty(Certifier):
    """One planted fault each; the checks must see it."""

    fault: str

    def certify(self, model: Network, x: Tensor, y: Tensor, *, generator=None) -> Certificate:
        margin = torch.zeros(len(x), dtype=torch.float64)
        if self.fault == "the image alone":
            with torch.no_grad():
                logits = model.eval()(x).double()
            margin = (logits.gather(1, y[:, None]) - logits).scatter(1, y[:, None], torch.inf).amin(1)
        elif self.fault == "everything":
            margin = margin + 1
        elif self.fault == "global randomness":
            margin = torch.rand(len(x)).double() - 1
        elif self.fault == "batch dependent":
            margin = margin - torch.arange(len(x))
        elif self.fault == "wrong mode":
            model.eval()
        certificate = Certificate.of_margins(x, margin)
        if self.fault == "ties":
            certificate.status[margin >= 0] = 1
        return certificate

    def run(self, problem) -> Certificate:
        raise AssertionError


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ("the image alone", check_sound),
        ("everything", check_sound),
        ("ties", check_ties),
        ("everything", check_misclassified),
        ("everything", check_exact_without_radius),
        ("global randomness", check_no_trace),
        ("wrong mode", check_no_trace),
        ("batch dependent", check_sample_streams),
    ],
)
def test_the_checks_see_planted_faults(fault: str, check: Callable, trained: tuple[Network, Tensor, Tensor]) -> None:
    model, x, y = trained
    if check is check_exact_without_radius:
        y = (y + (torch.arange(len(y)) % 2)) % 10  # some labels are wrong
    with pytest.raises(AssertionError):
        check(Faulty(threat=THREAT, fault=fault), model, x, y)
