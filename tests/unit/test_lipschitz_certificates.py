"""Certificates by Lipschitz constants: exact where they must be, never above what an attack finds, curves of radii."""

from __future__ import annotations

import csv
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from xrobust.attacks import FMN, PGD
from xrobust.attributions import Gradient
from xrobust.certification import Cascade, Falsifier, Lipschitz, trace
from xrobust.certification.lipschitz.certifier import rounding_errors
from xrobust.certification.lipschitz.margins import proven
from xrobust.defenses import GloRo
from xrobust.errors import UserError
from xrobust.evaluation import Ladder, evaluate
from xrobust.evaluation.certification import certify, verdicts_csv
from xrobust.evaluation.radii import certified_radii, count_above, radii_csv, radii_summary
from xrobust.metrics import CertifiedGradientBound, Probe
from xrobust.models import SmallCNN
from xrobust.report.certification import print_certification
from xrobust.schedules import Constant
from xrobust.threat import ThreatModel

THREAT = ThreatModel("l2", "0.3")
CERTIFIER = Lipschitz(threat=THREAT)


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, Tensor, Tensor]:
    """A GloRo net on the digits, and images that it has not seen."""
    from sklearn.datasets import load_digits

    data = load_digits()
    x, y = torch.from_numpy(data.images).float().unsqueeze(1) / 16, torch.from_numpy(data.target).long()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SmallCNN(num_classes=10, in_channels=1, image_size=8, activation="min_max", width=8, hidden=32)
        optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
        defense = GloRo(model=model, optimizer=lambda _: optimizer, schedule=Constant(), threat=THREAT, iterations=3)
        for _ in range(8):
            for rows in torch.randperm(1500).split(100):
                optimizer.zero_grad()
                defense.training_loss(x[rows], y[rows]).value.backward()
                optimizer.step()
    optimizer.zero_grad()
    return model.eval(), x[1500:], y[1500:]


def test_the_radius_of_a_linear_model_is_the_distance_to_its_nearest_boundary() -> None:
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(12, 4)).double(), torch.rand(20, 3, 2, 2).double()
    logits, rows = model(x).detach(), model[1].weight.detach()
    y = logits.argmax(1)
    apart = torch.cdist(rows, rows)[y]
    distance = ((logits.gather(1, y[:, None]) - logits) / apart).scatter(1, y[:, None], torch.inf).amin(1)
    for eps in (0.01, float(distance.median())):
        certificate = replace(CERTIFIER, threat=ThreatModel("l2", eps)).certify(model, x, y)
        torch.testing.assert_close(certificate.radius, distance, rtol=1e-9, atol=1e-12)
        assert (certificate.radius <= distance).all()
        assert torch.equal(certificate.certified, certificate.radius > eps)
        expected = (logits.gather(1, y[:, None]) - logits - eps * apart).scatter(1, y[:, None], torch.inf).amin(1)
        torch.testing.assert_close(certificate.margin, expected, rtol=1e-9, atol=1e-12)


def test_training_leaves_something_to_certify_and_no_attack_comes_nearer_than_the_radius(trained) -> None:
    model, x, y = trained
    certificate = CERTIFIER.certify(model, x, y)
    right = model(x).argmax(1) == y
    assert certificate.certified.float().mean() > 0.4 and not certificate.certified[~right].any()
    assert torch.equal(certificate.certified, certificate.radius > THREAT.radius)
    assert certificate.radius[~right].isnan().all() and (certificate.radius[right] >= 0).all()
    x, y, radius = x[right][:60], y[right][:60], certificate.radius[right][:60]
    # Minimal perturbations, beyond the pixel range as well, which the certificate makes no use of.
    free = ThreatModel("l2", 20, clip=(-20, 20))
    nearest = FMN(threat=free, steps=60)(model, x, y)
    broken = model(nearest).argmax(1) != y
    assert broken.all()
    distance = free.distance(nearest, x).double()
    assert (distance > radius).all() and (distance < 20 * radius).any()
    standing = PGD(threat=THREAT, steps=20, keep="worst")(model, x, y)
    assert (model(standing).argmax(1) == y)[radius > THREAT.radius].all()


def test_batches_of_one_and_a_cascade_say_the_same(trained) -> None:
    model, x, y = trained
    whole = CERTIFIER.certify(model, x[:12], y[:12])
    single = replace(CERTIFIER, batch_size=1).certify(model, x[:12], y[:12])
    falsifier = Falsifier(threat=THREAT, attack=PGD(threat=THREAT, steps=3))
    cascade = Cascade(threat=THREAT, certifiers={"attack": falsifier, "lipschitz": CERTIFIER})
    for other in (single, cascade.certify(model, x[:12], y[:12])):
        assert torch.equal(other.certified, whole.certified)
    torch.testing.assert_close(single.radius, whole.radius, rtol=1e-9, atol=1e-12, equal_nan=True)
    torch.testing.assert_close(CERTIFIER.certify(model, x[:1], y[:1]).radius, whole.radius[:1])


def test_a_bound_on_a_torus_certifies_less_and_never_more(trained) -> None:
    model, x, y = trained
    tight, loose = (each.certify(model, x[:50], y[:50]) for each in (CERTIFIER, replace(CERTIFIER, dense_limit=1)))
    known = tight.radius.isfinite()
    assert (loose.radius[known] <= tight.radius[known] * (1 + 1e-7)).all()
    assert (loose.radius[known] >= 0.5 * tight.radius[known]).all()


def test_ties_equal_classes_and_single_classes() -> None:
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), torch.rand(2, 1, 2, 2)
    nn.init.zeros_(model[1].weight)
    model[1].bias.data = torch.tensor([0.0, 0.0, -1.0])
    assert not CERTIFIER.certify(model, x, torch.tensor([0, 0])).certified.any()
    model[1].bias.data = torch.tensor([1.0, 0.0, 0.0])
    assert (CERTIFIER.certify(model, x, torch.tensor([0, 0])).radius == torch.inf).all()
    alone = nn.Sequential(nn.Flatten(), nn.Linear(4, 1))
    assert CERTIFIER.certify(alone, x, torch.tensor([0, 0])).certified.all()


def test_what_rounding_may_have_decided_is_not_certified() -> None:
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).double(), torch.rand(3, 1, 2, 2).double()
    nn.init.zeros_(model[1].weight)
    model[1].bias.data = torch.tensor([1e6 + 1e-9, 1e6]).double()
    assert not replace(CERTIFIER, threat=ThreatModel("l2", 0)).certify(model, x, torch.zeros(3).long()).certified.any()


def test_rounding_errors_bound_what_float32_loses(trained) -> None:
    """The rule for the unit roundoff of float64, scaled up to that of float32."""
    model, x, _ = trained
    exact = model.double()(x[:30].double())
    with torch.no_grad():
        network = trace(model, x[0].double()).network()
        bound = rounding_errors(network, network.values(x[:30].double()), proven())
        lost = (model.float()(x[:30]).double() - exact).norm(dim=1)
    scale = torch.finfo(torch.float32).eps / torch.finfo(torch.float64).eps
    assert (lost <= scale * bound).all() and (bound < 1e-9).all() and (lost > 0).any()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"threat": ThreatModel("linf", 0.1)}, "threat.norm must be one of 'l2'"),
        ({"precision": "float32"}, "precision must be one of 'float64'"),
        ({"dense_limit": 0}, "dense_limit must be an integer of at least 1"),
    ],
)
def test_bad_values_are_refused(options: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        Lipschitz(**{"threat": THREAT, **options})


def test_a_cascade_in_float32_is_refused(trained) -> None:
    model, x, y = trained
    cascade = Cascade(threat=THREAT, certifiers={"lipschitz": CERTIFIER}, precision="float32")
    with pytest.raises(UserError, match="float64"):
        cascade.certify(model, x[:2], y[:2])


def test_one_pass_gives_the_certified_accuracy_at_every_radius(trained, capsys) -> None:
    model, x, y = trained
    x, y = x[:60], y[:60]
    verdicts = certify(model, x, y, CERTIFIER, batch_size=25)
    radii = certified_radii(verdicts)
    assert radii is not None
    for eps in (0.0, 0.1, 0.3, 0.6):
        anew = certify(model, x, y, replace(CERTIFIER, threat=ThreatModel("l2", eps)))
        assert count_above(radii, eps) == int(anew.certified.sum()), eps
    summary = radii_summary(radii, THREAT.radius)
    assert summary["counts"][2] == {"radius": 0.3, "certified": int(verdicts.certified.sum())}
    assert summary["average_certified_radius"] == pytest.approx(np.nan_to_num(verdicts.radius).mean())
    rows = list(csv.DictReader(radii_csv(radii).splitlines()))
    shares = [float(row["certified_accuracy"]) for row in rows]
    assert shares == sorted(shares, reverse=True) and shares[0] > 0.4 and shares[-1] == 0
    evaluation = evaluate(model, x, y, [Ladder(PGD(threat=THREAT, steps=3, keep="worst"))])
    samples = list(csv.DictReader(verdicts_csv(verdicts, CERTIFIER, evaluation).splitlines()))
    for row in samples:
        assert (row["radius"] != "") == (row["label"] == row["clean_prediction"])
        assert (row["status"] == "certified") == (row["radius"] != "" and float(row["radius"]) > 0.3)
    statuses = {"unknown": 1, "certified": 59}
    told = {"results": [], "statuses": statuses, "decided_by": {}, "bounds_not_finite": 0, "radii": summary}
    print_certification(told, "folder")
    out = capsys.readouterr().out
    assert f"{int(verdicts.certified.sum()) / 60:.1%}" in out and "Average certified radius" in out


def test_a_cascade_that_decides_before_the_radius_is_known_draws_no_curve(trained) -> None:
    model, x, y = trained
    attack = PGD(threat=THREAT, steps=10)
    first = {"pgd": Falsifier(threat=THREAT, attack=attack), "lipschitz": CERTIFIER}
    verdicts = certify(model, x[:60], y[:60], Cascade(threat=THREAT, certifiers=first))
    assert np.isfinite(verdicts.radius).any() and certified_radii(verdicts) is None


def test_certifiers_without_radii_draw_no_curve(digits_model: nn.Module, digits) -> None:
    attack = PGD(threat=THREAT, steps=1)
    verdicts = certify(digits_model, digits[0][:4], digits[1][:4], Falsifier(threat=THREAT, attack=attack))
    assert certified_radii(verdicts) is None and math.isnan(verdicts.radius[0])


def test_the_share_of_the_certified_gradient_is_1_for_a_linear_model_and_at_most_1(trained) -> None:
    linear = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    for model, least in ((trained[0], 0.01), (linear, 1 - 1e-5)):
        x, y = trained[1][:20], trained[2][:20]
        seen = Probe(model=model, x=x, y=y, index=torch.arange(20), method=Gradient(), threat=THREAT)
        values = CertifiedGradientBound().per_sample(seen)
        assert ((values > least) & (values <= 1 + 1e-6)).all()
        assert CertifiedGradientBound().lacks(seen) is None


def test_a_model_without_a_constant_is_named_by_the_metric(trained) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Hardswish())
    x, y = trained[1][:2], trained[2][:2]
    seen = Probe(model=model, x=x, y=y, index=torch.arange(2), method=Gradient(), threat=THREAT)
    assert "Hardswish" in str(CertifiedGradientBound().lacks(seen))
