"""The grid of metrics and attributions, its references, and the card."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from xrobust.attacks import PGD, TopKAttack
from xrobust.attributions import Gradient, InputXGradient, IntegratedGradients, RandomMap
from xrobust.errors import UserError
from xrobust.explanation import CHECKLIST, Measurement, answer, check_needs, check_plan, measure, panel_data, plan
from xrobust.explanation.references import reference_measurements
from xrobust.export.explanation_table import card_columns, card_markdown, card_rows
from xrobust.metrics import (
    MPRT,
    GiniIndex,
    InputGradientNorm,
    PointingGame,
    Probe,
    RandomLogit,
    SettingAgreement,
    TopKIntersection,
)
from xrobust.threat import ThreatModel

THREAT = ThreatModel("linf", "0.1")
METHODS = {"gradient": Gradient(), "noise": RandomMap()}


@pytest.fixture
def probe(digits: tuple[Tensor, Tensor], digits_model: nn.Module) -> Probe:
    x, y = digits[0][:24], digits[1][:24]
    return Probe(
        model=digits_model,
        x=x,
        y=y,
        index=torch.arange(24),
        method=Gradient(),
        threat=THREAT,
        attack=PGD(threat=THREAT, steps=3, keep="worst"),
        map_attack=TopKAttack(threat=THREAT, attribution=Gradient(), steps=3),
        mask=x[:, 0] > 0.5,
        pool=(x, y),
    )


def parts(probe: Probe, size: int) -> list[Probe]:
    assert probe.mask is not None
    rows = [slice(start, start + size) for start in range(0, len(probe), size)]
    return [
        replace(probe, x=probe.x[r], y=probe.y[r], index=probe.index[r], mask=probe.mask[r], shared={}) for r in rows
    ]


METRICS = {
    "gini": GiniIndex(),
    "norm": InputGradientNorm(),
    "attacked": TopKIntersection(versus="attacked"),
    "noise": TopKIntersection(versus="neighbour"),
    "logit": RandomLogit(),
    "pointing": PointingGame(),
}


def test_the_plan_measures_a_metric_of_the_model_once_and_attacks_only_maps_that_can_be_differentiated() -> None:
    assert list(plan(METHODS, METRICS)) == [
        "complexity/gini/gradient",
        "complexity/gini/noise",
        "smoothness/norm",
        "stability/attacked/gradient",
        "stability/noise/gradient",
        "stability/noise/noise",
        "randomisation/logit/gradient",
        "randomisation/logit/noise",
        "localisation/pointing/gradient",
        "localisation/pointing/noise",
    ]


def test_a_metric_that_needs_what_there_is_not_is_refused_by_name(probe: Probe) -> None:
    check_needs(METRICS, replace(probe, attack=None, pool=None))
    with pytest.raises(UserError, match=r"metrics=pointing needs data that tells which pixels matter"):
        check_needs(METRICS, replace(probe, mask=None))
    with pytest.raises(UserError, match=r"metrics=attacked needs an attack on the map"):
        check_needs(METRICS, replace(probe, map_attack=None))


def test_parts_make_no_difference(probe: Probe) -> None:
    whole, split = measure([probe], METHODS, METRICS), measure(parts(probe, 10), METHODS, METRICS)
    assert [m.key for m in whole] == [m.key for m in split] == list(plan(METHODS, METRICS))
    for one, other in zip(whole, split, strict=True):
        assert one.values.shape == (24,)
        np.testing.assert_allclose(one.values, other.values, rtol=2e-3, atol=1e-5)


def test_a_measurement_counts_what_is_undefined() -> None:
    values = np.array([1.0, np.nan, 3.0, np.inf])
    some = Measurement("m", None, "axioms", 1, True, values, 0.1)
    assert (some.mean, some.valid, some.key) == (2.0, 0.5, "axioms/m")
    assert some.standard_error == pytest.approx(1.0)
    none = Measurement("m", "a", "axioms", 1, True, np.full(3, np.nan), 0.1).as_dict()
    assert none["mean"] is None and none["standard_error"] is None and none["valid"] == 0


def test_references_are_an_untrained_network_and_maps_that_ignore_the_network(probe: Probe) -> None:
    before = [value.clone() for value in probe.model.state_dict().values()]
    found = reference_measurements([probe], {"gradient": Gradient()}, METRICS)
    assert list(found) == ["untrained", "random_map", "edge_detector"]
    means = {name: {m.key: m.mean for m in some} for name, some in found.items()}
    trained = {m.key: m.mean for m in measure([probe], {"gradient": Gradient()}, METRICS)}
    assert means["untrained"].keys() == trained.keys()
    assert means["untrained"]["smoothness/norm"] != trained["smoothness/norm"]
    assert "smoothness/norm" not in means["random_map"], "a map says nothing about the model alone"
    assert means["edge_detector"]["randomisation/logit/edge_detector"] == pytest.approx(1), "edges have no class"
    assert means["random_map"]["stability/noise/random_map"] == pytest.approx(1), "nor does noise see the image"
    assert all(torch.equal(a, b) for a, b in zip(before, probe.model.state_dict().values(), strict=True))


def test_a_randomisation_test_changes_the_untrained_network(probe: Probe) -> None:
    found = reference_measurements([probe], {"gradient": Gradient()}, {"mprt": MPRT()})["untrained"]
    assert found[0].mean < 0.9, "fresh weights in the place of the same fresh weights would be 1"


def test_what_leaves_nothing_to_measure_is_refused(probe: Probe) -> None:
    check_plan(METHODS, METRICS, replace(probe, mask=None))
    with pytest.raises(UserError, match=r"metrics=attacked needs .* attribution=noise cannot be differentiated"):
        check_plan({"noise": RandomMap()}, {"attacked": METRICS["attacked"]}, probe)
    with pytest.raises(UserError, match="metrics=pointing needs data"):
        check_plan(METHODS, {"pointing": PointingGame()}, replace(probe, mask=None))


def test_every_measurement_answers_one_question_of_the_card(probe: Probe) -> None:
    measurements, card = answer([probe], METHODS, METRICS, split="validation")
    by_point = {point["number"]: [row["metric"] for row in point["rows"]] for point in card["points"]}
    assert by_point[5] == ["attacked"] and by_point[4] == ["noise", "noise"] and by_point[6] == ["logit", "logit"]
    assert by_point[12] == ["norm"], "a metric of the model alone"
    assert sum(map(len, by_point.values())) == len(measurements)
    assert [point["number"] for point in card["points"]] == [point.number for point in CHECKLIST] == list(range(1, 13))
    assert json.loads(json.dumps(card, allow_nan=False)) == card
    assert card["methods"]["gradient"]["gradients"] > 0 and card["methods"]["noise"]["differentiable"] is False
    (row,) = card_rows(card["points"][4])
    assert row[:2] == ["attacked ↑", "gradient"] and len(row) == len(card_columns(card))
    assert row[-2:] == ["—", "—"], "maps that cannot be differentiated cannot be attacked"
    text = card_markdown(card)
    for words in ("## 12. The model itself", "pointing ↑", "Not measured.", "images: 24", "PGD (linf ε=0.1"):
        assert words in text, words


def test_settings_agree_where_there_are_none_and_less_where_there_are(probe: Probe) -> None:
    metric = SettingAgreement()
    assert metric.per_sample(probe.using(InputXGradient())) == pytest.approx(torch.ones(24).numpy())
    values = metric.per_sample(probe.using(IntegratedGradients(steps=8)))
    assert IntegratedGradients().settings() and (values < 1).all()


def test_a_panel_shows_what_the_attacks_did(probe: Probe) -> None:
    data = panel_data(probe, METHODS)
    assert data["map/noise"].shape == data["attacked_map/gradient"].shape == (24, 1, 8, 8)
    assert "attacked_map/noise" not in data
    assert (data["attacked_predictions/gradient"] == data["predictions"]).all()
