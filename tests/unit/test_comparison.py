"""Finished runs side by side: what is read, averaged, correlated and refused."""

from __future__ import annotations

import csv
import io
import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conf_walk import CONF, WITHOUT_METRICS, composed
from scipy import stats

from xrobust.comparison import compare_runs, read_places
from xrobust.comparison.folder import selected_epoch
from xrobust.comparison.grouping import differences, grouped
from xrobust.comparison.places import common_folder
from xrobust.comparison.protocols import choose
from xrobust.comparison.run import Measurement, Run, training_radius
from xrobust.comparison.statistics import correlation, mean_interval, spearman
from xrobust.comparison.tables import tables
from xrobust.config.choices import choice_name
from xrobust.errors import UserError
from xrobust.report.comparison import Correlation, in_words, label
from xrobust.report.comparison_figures import draw_eps_sweep, draw_trajectories
from xrobust.report.history import write_history

GINI = "explain/complexity/gini_index/gradient"
ROBUST = "test/robust_accuracy"


def attack(eps: str = "3/10", steps: int = 40, seed: int = 0) -> dict[str, Any]:
    threat = {"norm": "linf", "eps": eps}
    summary = f"PGD (linf ε={float(Fraction(eps)):g}, steps {steps})"
    return {
        "split": "test",
        "seed": seed,
        "attack": {"name": "PGD", "threat": threat, "steps": steps, "summary": summary},
    }


def run(name: str, *measurements: Measurement, eps: object = 0.3, **others: Any) -> Run:
    config = {"defense": {"_target_": "xrobust.defenses.TRADES"}, "threat": {"norm": "linf", "eps": eps}, "seed": 0}
    return Run(name, Path(name), config, measurements, **others)


def robust(value: float, n: int = 1000, **protocol: Any) -> Measurement:
    return Measurement(ROBUST, value, attack(**protocol), n)


def gini(value: float, images: int = 128, source: str = "card") -> Measurement:
    return Measurement(GINI, value, {"source": source, "seed": 0}, images)


def compared(groups: dict[str, list[Run]], **left_out: str) -> Any:
    return compare_runs(groups, left_out, resamples=200, seed=0)


# Statistics


def test_the_interval_of_a_mean_is_that_of_student() -> None:
    values = [0.1, 0.4, 0.35, 0.8]
    mean, interval = mean_interval(values)
    expected = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert mean == pytest.approx(0.4125) and interval == pytest.approx(expected)
    # n = 2: t(0.975; 1) = tan(0.475 π)
    assert mean_interval([1.0, 2.0])[1] == pytest.approx((1.5 - math.tan(0.475 * math.pi) / 2, 1.5 + 12.7062047 / 2))


def test_one_run_has_a_mean_and_no_interval() -> None:
    assert mean_interval([0.7]) == (0.7, None)


def test_rank_correlations_agree_with_scipy_also_with_ties() -> None:
    x, y = np.random.default_rng(0).integers(0, 5, (2, 7, 12)).astype(float)
    expected = [stats.spearmanr(a, b).statistic for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(spearman(x, y), expected, atol=1e-12)


def test_the_bootstrap_interval_agrees_with_scipy() -> None:
    random = np.random.default_rng(1)
    x = random.normal(size=25)
    y = 0.6 * x + random.normal(size=25)
    found = correlation(list(x), list(y), 4000, 0)
    assert found is not None and found[1] is not None

    options = {"paired": True, "n_resamples": 4000, "method": "percentile", "rng": 2}
    other = stats.bootstrap((x, y), lambda a, b, axis: spearman(a, b), vectorized=True, **options)
    assert found[0] == pytest.approx(stats.spearmanr(x, y).statistic)
    assert found[1] == pytest.approx(tuple(other.confidence_interval), abs=0.04)


@pytest.mark.parametrize(("sign", "words"), [(1, "rises with"), (-1, "falls with")])
def test_a_planted_relation_is_found(sign: int, words: str) -> None:
    accuracy = [0.1, 0.3, 0.2, 0.6, 0.8, 0.7]
    rho, interval = correlation(accuracy, [sign * value**3 for value in accuracy], 500, 0) or (None, None)
    assert rho == pytest.approx(sign) and interval == pytest.approx((sign, sign))
    assert in_words(Correlation("all runs", "", ROBUST, GINI, rho, interval, 6, True)).startswith(words)


def test_unrelated_values_have_no_clear_relation() -> None:
    x, y = np.random.default_rng(3).normal(size=(2, 30))
    rho, interval = correlation(list(x), list(y), 1000, 0) or (None, None)
    assert interval is not None and interval[0] < 0 < interval[1]
    assert "no clear relation" in in_words(Correlation("all runs", "", ROBUST, GINI, rho, interval, 30, True))


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [([1, 2, 3], [1, 2, 3], "fewer than 4"), ([1, 1, 1, 1], [1, 2, 3, 4], "constant"), ([], [], "fewer than 4")],
)
def test_an_undefined_correlation_is_none_and_says_why(x: list[float], y: list[float], words: str) -> None:
    assert correlation(x, y, 100, 0) is None
    assert words in in_words(Correlation("all runs", "", ROBUST, GINI, None, None, len(x), True))


def test_resamples_follow_the_seed_alone() -> None:
    x, y = np.random.default_rng(4).normal(size=(2, 9))
    first, again, other = (correlation(list(x), list(y), 100, seed) for seed in (0, 0, 1))
    assert first == again and first != other


# Protocols


def test_accuracies_of_different_protocols_are_refused_by_name() -> None:
    runs = [run("a", robust(0.9)), run("b", robust(0.8, steps=10))]
    with pytest.raises(UserError) as error:
        choose({"trades": runs})
    sentence = str(error.value)
    assert all(word in sentence for word in (ROBUST, "trades", "steps 40", "in a", "steps 10", "in b", "group="))


@pytest.mark.parametrize("other", [robust(0.8, n=500), robust(0.8, eps="1/10")])
def test_number_of_images_and_radius_belong_to_the_protocol(other: Measurement) -> None:
    with pytest.raises(UserError, match="not measured in one way"):
        choose({"trades": [run("a", robust(0.9)), run("b", other)]})


def test_seeds_may_differ_and_are_listed() -> None:
    found = compared({"trades": [run("a", robust(0.9, seed=3)), run("b", robust(0.8, seed=4))]})
    (mean,) = found.means
    assert mean.value == pytest.approx(0.85) and mean.runs == 2
    (line,) = found.protocols
    assert line.seeds == ("3", "4") and line.images == 1000 and "PGD (linf ε=0.3, steps 40)" in line.text


def test_the_shared_protocol_of_the_own_radius_and_the_lowest_accuracy_is_taken() -> None:
    weak, strong, tiny, large = (robust(0.9, steps=1), robust(0.8), robust(0.99, eps="1/10"), robust(0.1, eps="1/2"))
    only_here = robust(0.05, steps=99)
    runs = [run("a", weak, only_here, strong, large, tiny), run("b", tiny, weak, large, strong)]
    chosen, warnings = choose({"trades": runs})
    assert chosen[ROBUST] == {"a": strong, "b": strong} and not warnings


def certified(value: float, eps: object, summary: str = "IBP") -> Measurement:
    certifier = {"threat": {"norm": "linf", "eps": str(eps)}, "summary": f"{summary} (linf ε={eps})"}
    return Measurement("test/certified_accuracy", value, {"split": "test", "certifier": certifier}, 1000)


def smoothed(value: float, radius: float) -> Measurement:
    certifier = {"norm": "l2", "radius": radius, "summary": f"smoothing, radius {radius:g}"}
    return Measurement("test/certified_accuracy", value, {"split": "test", "certifier": certifier}, 1000)


def test_certified_accuracy_is_that_of_the_own_radius_by_the_tightest_certifier() -> None:
    loose, tight = certified(0.5, 0.3), certified(0.6, 0.3, "CROWN")
    small, large = certified(0.9, 0.1), certified(0.1, 0.5)
    chosen, _ = choose({"ibp": [run("a", small, loose, tight, large)]})
    assert chosen["test/certified_accuracy"] == {"a": tight}
    chosen, _ = choose({"ibp": [run("a", small, large)]})
    assert chosen["test/certified_accuracy"] == {"a": large}, "that of a smaller radius would be too high"


def test_certified_accuracy_by_smoothing_is_that_of_the_own_radius() -> None:
    curve = [smoothed(1.0, 0.0), smoothed(0.72, 0.5), smoothed(0.17, 1.5), smoothed(0.05, 2.0)]
    trained = run("a", *curve)
    trained.config["threat"].update(norm="l2", eps="3/2")  # type: ignore[index]
    assert choose({"smoothing": [trained]})[0]["test/certified_accuracy"] == {"a": curve[2]}


def test_groups_may_differ_in_protocol_but_are_not_correlated_then() -> None:
    groups = {
        eps: [run(f"{eps} {i}", robust(0.1 * i, eps=eps), gini(i), eps=eps) for i in range(4)]
        for eps in ("1/10", "1/5")
    }
    found = compared(groups)
    assert {c.over for c in found.correlations} == {"runs of a group"}
    assert any("differs in its protocol" in warning and "ε=0.1" in warning for warning in found.warnings)
    alike = {name: [run(f"{name} {i}", robust(0.1 * i), gini(i)) for i in range(4)] for name in ("one", "two")}
    assert {c.over for c in compared(alike).correlations} == {"all runs", "runs of a group"}


def test_a_metric_without_a_common_protocol_is_left_out_with_its_runs() -> None:
    runs = [run("a", robust(0.9), gini(0.5, images=8)), run("b", robust(0.9), gini(0.6, images=32))]
    found = compared({"trades": runs})
    assert found.quantities == [ROBUST]
    (warning,) = found.warnings
    assert all(word in warning for word in ("gini_index", "images: 8 in a", "images: 32 in b", "trades"))


def test_one_source_is_taken_for_a_metric_the_one_of_most_images() -> None:
    runs = [run(name, gini(0.1, 32, "card"), gini(0.9, 128, "history")) for name in "ab"]
    chosen, _ = choose({"trades": runs})
    assert {found.value for found in chosen[GINI].values()} == {0.9}
    chosen, _ = choose({"trades": [*runs, run("c", gini(0.2, 32, "card"))]})  # shared by all
    assert [found.value for found in chosen[GINI].values()] == [0.1, 0.1, 0.2]


# Runs


def write_run(folder: Path, name: str = "TRADES", seed: int = 0, test: bool = True, finished: bool = True) -> Path:
    """A run of three epochs, the second of which is the best."""
    folder.mkdir(parents=True)
    write_history(
        folder / "metrics.csv",
        [
            {"epoch": e, "val/clean_accuracy": clean, "val/robust_accuracy": robust, GINI: e / 10, f"{GINI}/valid": 1.0}
            for e, (clean, robust) in enumerate([(0.5, 0.2), (0.7, 0.6), (0.9, 0.6)])
        ],
    )
    (folder / "config.yaml").write_text("seed: 0\n")
    (folder / "explanation_metrics.json").write_text(json.dumps({GINI: True}))
    if finished:
        threat = {"norm": "linf", "eps": 0.3}
        training = {
            "defense": {"_target_": f"xrobust.defenses.{name}", "attack": {"threat": threat}},
            "regularizers": {},
            "threat": threat,
            "val_attack": {"_target_": "xrobust.attacks.PGD", "threat": threat, "steps": 10},
            "callbacks": {"best_checkpoint": {"monitor": None}, "explanation_quality": {"images": 128, "seed": 0}},
            "seed": seed,
        }
        results = [
            {"quantity": "test/clean_accuracy", "value": 0.9, "n": 100, "protocol": {"split": "test"}},
            {"quantity": ROBUST, "value": 0.5, "n": 100, "protocol": attack(seed=seed)},
        ]
        described = {"format": 1, "architecture": {}, "sha256": f"{folder}", "training": training}
        (folder / "bundle").mkdir()
        text = json.dumps({**described, "results": results if test else []})
        (folder / "bundle" / "config.json").write_text(text)
    return folder


def values_of(found: Run) -> dict[str, float]:
    return {measurement.quantity: measurement.value for measurement in found.measurements}


def test_a_run_has_its_test_accuracies_and_the_metrics_of_the_selected_epoch(tmp_path: Path) -> None:
    (found,), left_out = read_places([str(write_run(tmp_path / "0"))])
    assert values_of(found) == {"test/clean_accuracy": 0.9, ROBUST: 0.5, GINI: 0.1}
    assert found.epoch == 1 and found.name == "0" and not left_out


def test_without_a_test_the_validation_of_the_selected_epoch_stands_under_its_own_name(tmp_path: Path) -> None:
    places = [str(write_run(tmp_path / "0", test=False)), str(write_run(tmp_path / "1"))]
    runs, _ = read_places(places)
    assert values_of(runs[0]) == {"val/clean_accuracy": 0.7, "val/robust_accuracy": 0.6, GINI: 0.1}
    found = compared({"trades": runs})
    assert {ROBUST, "val/robust_accuracy"} <= set(found.quantities) and found.accuracy == ROBUST
    assert f"{ROBUST} is not known of 0." in found.warnings
    rows = list(csv.DictReader(io.StringIO(tables(found)["runs.csv"])))
    assert [row[ROBUST] for row in rows] == ["", "0.5"]


@pytest.mark.parametrize(("method", "epoch"), [("TRADES", 1), ("StandardTraining", 2)])
def test_the_selected_epoch_is_the_first_of_the_best_by_what_the_method_selects(method: str, epoch: int) -> None:
    rows = [{"epoch": float(e), "val/clean_accuracy": e / 3, "val/robust_accuracy": min(e, 1.0)} for e in range(3)]
    config = {"defense": {"_target_": f"xrobust.defenses.{method}"}, "callbacks": {"best_checkpoint": {}}}
    assert selected_epoch(config, rows) == epoch
    assert selected_epoch({**config, "callbacks": {}}, rows) == 2  # nothing selected: the last
    undefined = {"epoch": 3.0, "val/clean_accuracy": math.nan, "val/robust_accuracy": math.nan}
    assert selected_epoch(config, [undefined, *rows]) == epoch
    assert selected_epoch(config, []) is None


def test_folders_of_a_multirun_are_its_runs_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("10", "2", "0"):
        write_run(tmp_path / name)
    (tmp_path / "compare").mkdir()
    (tmp_path / "compare" / "compare.html").touch()
    runs, left_out = read_places([str(tmp_path)])
    assert [found.name for found in runs] == ["0", "2", "10"] and not left_out
    assert common_folder([str(tmp_path)]) == tmp_path / "compare"
    assert common_folder([str(tmp_path / "0"), str(tmp_path / "2" / "bundle")]) == tmp_path / "compare"


def test_incomplete_runs_are_named_and_left_out(tmp_path: Path) -> None:
    write_run(tmp_path / "0")
    write_run(tmp_path / "1", finished=False)
    (tmp_path / "2").mkdir()
    runs, left_out = read_places([str(tmp_path)])
    assert [found.name for found in runs] == ["0"]
    assert "3 epochs" in left_out[str(tmp_path / "1")] and "config.yaml" in left_out[str(tmp_path / "2")]
    warnings = compare_runs({"trades": runs}, left_out, resamples=10, seed=0).warnings
    assert any(str(tmp_path / "1") in warning and "left out" in warning for warning in warnings)


def test_a_bundle_alone_is_a_run_without_history(tmp_path: Path) -> None:
    (found,), _ = read_places([str(write_run(tmp_path / "0") / "bundle")])
    assert found.name == "0" and found.history == [] and found.epoch is None
    assert values_of(found) == {"test/clean_accuracy": 0.9, ROBUST: 0.5}


def test_runs_of_one_name_are_told_apart_by_the_folder_above(tmp_path: Path) -> None:
    places = [str(write_run(tmp_path / above / "0")) for above in ("one", "two")]
    assert [found.name for found in read_places(places)[0]] == ["one/0", "two/0"]


def test_places_that_hold_no_finished_run_are_refused(tmp_path: Path) -> None:
    unfinished = write_run(tmp_path / "1", finished=False)
    (tmp_path / "empty").mkdir()
    for place, words in ((unfinished, "no run is finished"), (tmp_path / "empty", "holds no runs"), ("x", "runs=x")):
        with pytest.raises(UserError, match=words):
            read_places([str(place)])
    done = str(write_run(tmp_path / "0"))
    with pytest.raises(UserError, match="given twice"):
        read_places([done, f"{done}/"])


TABLE = f"""Name,State,defense._target_,threat.norm,threat.eps,test_attack._target_,test_attack.steps,seed,{ROBUST},\
val/clean_accuracy.max,{GINI},{GINI}/valid,explain/seconds
a,finished,xrobust.defenses.TRADES,linf,0.3,xrobust.attacks.PGD,40,0,0.9,0.8,0.5,1,2
b,finished,xrobust.defenses.TRADES,linf,0.3,xrobust.attacks.PGD,40,1,0.7,0.7,NaN,0,2
c,crashed,xrobust.defenses.TRADES,linf,0.3,xrobust.attacks.PGD,40,2,0.7,0.7,0.4,1,2
"""


def test_a_table_of_runs_is_read(tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text(TABLE)
    runs, left_out = read_places([str(tmp_path / "runs.csv")])
    assert values_of(runs[0]) == {ROBUST: 0.9, "val/clean_accuracy": 0.8, GINI: 0.5}
    assert values_of(runs[1]) == {ROBUST: 0.7, "val/clean_accuracy": 0.7}
    assert [(found.name, found.config["seed"]) for found in runs] == [("a", "0"), ("b", "1")]
    ((name, reason),) = left_out.items()
    assert name.endswith("runs.csv: c") and "crashed" in reason
    groups = grouped(runs, ["defense", "threat.eps"], lambda key, node: "trades")
    assert list(groups) == ["trades eps=0.3"]
    (mean, *_) = compared(groups).means
    assert (mean.quantity, mean.value, mean.runs) == (ROBUST, pytest.approx(0.8), 2)


def test_runs_of_a_table_with_other_test_attacks_are_not_averaged(tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text(TABLE.replace("PGD,40,1", "PGD,10,1"))
    runs, _ = read_places([str(tmp_path / "runs.csv")])
    with pytest.raises(UserError, match="not measured in one way"):
        choose({"trades": runs})


def test_validation_accuracies_of_a_table_have_the_protocol_of_its_configuration(tmp_path: Path) -> None:
    head = "Name,threat,val_attack._target_,val_attack.threat.norm,val_attack.threat.eps,val_attack.steps"
    rows = "a,linf_0_3,xrobust.attacks.PGD,linf,0.3,10,1000,0.6\nb,linf_0_3,xrobust.attacks.PGD,linf,0.3,10,None,0.5\n"
    keys = "callbacks.robust_accuracy.val_images,val/robust_accuracy.max"
    (tmp_path / "runs.csv").write_text(f"{head},{keys}\n{rows}")
    (first, second), _ = read_places([str(tmp_path / "runs.csv")])
    (found,), (other,) = first.measurements, second.measurements
    assert (found.quantity, found.value, found.images, other.images) == ("val/robust_accuracy", 0.6, 1000, None)
    assert "PGD (linf ε=0.3, steps 10)" in found.in_words() and "best value logged" in found.in_words()
    assert compared({"a": [first], "b": [second]}).means[0].value == 0.6
    with pytest.raises(UserError, match="images: 1000 in a"):
        choose({"both": [first, second]})


def test_a_table_without_names_is_refused(tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text("seed\n1\n")
    with pytest.raises(UserError, match="column Name"):
        read_places([str(tmp_path / "runs.csv")])


# Groups


@pytest.mark.parametrize("name", ["pgd_at", "fgsm_rs", "trades", "standard"])
def test_a_method_has_the_name_of_its_choice(name: str) -> None:
    node = composed(f"defense={name}", *WITHOUT_METRICS)["defense"]
    assert choice_name(CONF, "defense", node) == name
    assert choice_name(CONF, "defense", {"_target_": "elsewhere.Own"}) == "Own"


def test_groups_are_methods_with_their_regularisers_or_any_keys() -> None:
    runs = [run("a"), run("b", eps=0.1), run("c")]
    runs[2].config["regularizers"] = {"igr": {}}  # type: ignore[index]

    def naming(key: str, node: Any) -> str:
        return "trades"

    assert {k: [r.name for r in v] for k, v in grouped(runs, ["defense"], naming).items()} == {
        "trades": ["a", "b"],
        "trades + igr": ["c"],
    }
    assert list(grouped(runs, ["threat.eps"], naming)) == ["eps=0.3", "eps=0.1"]
    assert list(grouped(runs, [], naming)) == ["all runs"]
    with pytest.raises(UserError, match=r"group=threat.norms: .*run a"):
        grouped(runs, ["threat.norms"], naming)


def test_runs_of_a_group_that_are_no_repetitions_are_told() -> None:
    a, b = run("a"), run("b")
    b.config["seed"] = 5  # type: ignore[index]
    assert differences("trades", [a, b]) == []
    b.config["defense"]["beta"] = 1  # type: ignore[index]
    (warning,) = differences("trades", [a, b])
    assert "defense.beta (None, 1)" in warning


def test_equal_weights_and_masked_gradients_are_told() -> None:
    runs = [run(name, robust(0.9), weights="same", warnings=["transfer: 20% broken."]) for name in "ab"]
    warnings = compared({"trades": runs}).warnings
    assert any("same weights" in warning and "a, b" in warning for warning in warnings)
    assert any(warning.startswith("b: ") and "transfer: 20% broken." in warning for warning in warnings)


def test_the_radius_of_the_training_is_that_of_the_method() -> None:
    threat = {"norm": "linf", "eps": "8/255"}
    assert training_radius({"_target_": "x", "attack": {"steps": 3, "threat": threat}}) == pytest.approx(8 / 255)
    assert training_radius({"_target_": "x.StandardTraining"}) is None


# What comes out


def test_correlations_over_epochs_are_those_of_the_run(tmp_path: Path) -> None:
    place = write_run(tmp_path / "0")
    rows = [{"epoch": e, "val/robust_accuracy": e / 9, GINI: (9 - e) ** 2} for e in range(8)]
    write_history(place / "metrics.csv", rows)
    runs, _ = read_places([str(place)])
    (found,) = [c for c in compared({"trades": runs}).correlations if c.over == "epochs of a run"]
    assert found.rho == pytest.approx(-1) and found.pairs == 8 and (found.where, found.metric) == ("0", GINI)


def test_epochs_in_which_a_metric_is_undefined_do_not_count(tmp_path: Path) -> None:
    place = write_run(tmp_path / "0")
    rows = [{"epoch": e, "val/robust_accuracy": e / 9, GINI: math.nan if e in (2, 6) else e} for e in range(7)]
    write_history(place / "metrics.csv", rows)
    runs, _ = read_places([str(place)])
    assert GINI not in values_of(runs[0])  # undefined at the selected epoch, the last
    comparison = compared({"trades": runs})
    (found,) = comparison.correlations
    assert found.rho == pytest.approx(1) and found.pairs == 5
    assert "nan" not in tables(comparison)["trajectories.csv"]


def test_tables_leave_the_undefined_empty() -> None:
    found = compared(
        {"trades": [run("a", robust(0.9), gini(0.4))], "b": [run("b", robust(0.8)), run("c", robust(0.7))]}
    )
    summary, correlations, runs = (
        list(csv.DictReader(io.StringIO(tables(found)[name])))
        for name in ("summary.csv", "correlations.csv", "runs.csv")
    )
    assert (summary[0]["lower"], summary[0]["note"]) == ("", "one run: no interval")
    two = next(row for row in summary if row["group"] == "b")
    assert float(two["lower"]) == pytest.approx(0.75 - 12.7062047 * 0.05) and two["note"] == ""
    assert correlations == [
        {
            "over": "all runs",
            "where": "",
            "accuracy": ROBUST,
            "metric": GINI,
            "rho": "",
            "lower": "",
            "upper": "",
            "n": "1",
            "note": "",
        }
    ]
    assert [row[GINI] for row in runs] == ["0.4", "", ""]


def test_metrics_of_groups_that_were_measured_differently_are_marked() -> None:
    groups = {str(n): [run(f"{n} {i}", robust(0.1 * i), gini(i, images=n)) for i in range(2)] for n in (8, 32)}
    (found,) = compared(groups).correlations
    assert not found.one_protocol and in_words(found).endswith("(measured in different ways)")


def test_the_figure_of_radii_needs_two_of_them() -> None:
    def trained(name: str, eps: float) -> Run:
        made = run(name, robust(0.5))
        made.config["defense"]["attack"] = {"threat": {"norm": "linf", "eps": eps}}  # type: ignore[index]
        return made

    assert draw_eps_sweep(compared({"trades": [trained("a", 0.1), trained("b", 0.1)]})) is None
    drawn = draw_eps_sweep(compared({"trades": [trained("a", 0.1), trained("b", 0.2)]}))
    assert drawn is not None and len(drawn.axes) == 2  # the legend, and the accuracy
    assert sorted(drawn.axes[1].lines[0].get_xdata()) == [0.1, 0.2]
    assert draw_trajectories(compared({"trades": [run("a", robust(0.5))]})) is None


def test_quantities_have_short_labels_with_their_direction() -> None:
    assert label(GINI, {GINI: True}) == "gini_index ↑ gradient"
    assert label("explain/smoothness/input_gradient_norm", {}) == "input_gradient_norm"
    assert label(ROBUST, {ROBUST: True}) == f"{ROBUST} ↑"
