"""The published ensembles in conf/attack have the published members and budgets."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from xrobust.attacks import APGD, EOT, FAB, APGDTargeted, Square, WorstOf
from xrobust.config.build import build, plain
from xrobust.threat import ThreatModel

CONF = Path(__file__).parents[2] / "conf"
THREAT = ThreatModel("linf", "8/255")

APGD_CE, APGD_DLR = APGD(threat=THREAT), APGD(threat=THREAT, loss="dlr")
APGD_T, FAB_T = APGDTargeted(threat=THREAT, targets=9), FAB(threat=THREAT, targets=9)
SQUARE = Square(threat=THREAT, queries=5000, rescale_schedule=False)
PUBLISHED = {
    "autoattack_standard": [APGD_CE, APGD_T, FAB_T, SQUARE],
    "autoattack_standard_l1": [
        APGD(threat=THREAT, restarts=5, shrinking_radius=True),
        APGDTargeted(threat=THREAT, targets=5, shrinking_radius=True),
        FAB_T,
        SQUARE,
    ],
    "autoattack_plus": [
        APGD(threat=THREAT, restarts=5),
        APGD(threat=THREAT, restarts=5, loss="dlr"),
        FAB(threat=THREAT, restarts=5),
        SQUARE,
        APGD_T,
        FAB_T,
    ],
    "autoattack_rand": [EOT(threat=THREAT, attack=attack, draws=20) for attack in (APGD_CE, APGD_DLR)],
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_an_ensemble_has_its_published_members(name: str) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = plain(compose(overrides=[f"+attack={name}", "+threat=linf_8_255"]))
    attack = build(config["attack"], "attack")
    assert isinstance(attack, WorstOf) and attack.threat == THREAT
    assert list(attack.attacks.values()) == PUBLISHED[name]
