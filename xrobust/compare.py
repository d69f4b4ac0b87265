"""Compare finished runs: how do explanations change with robustness?

python -m xrobust.compare runs=runs/multirun/2026-01-31_12-00-00
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from xrobust.command import CONF, check_output, start
from xrobust.errors import UserError, at_least, require_some

CONFIG_NAME = "compare"


def compare(cfg: Any) -> None:
    """Read, group, average, correlate, draw: the job of a composed configuration."""
    # Heavy imports come here, so that `--cfg job` and `--help` answer at once.
    from xrobust.comparison import compare_runs, read_places
    from xrobust.comparison.grouping import grouped
    from xrobust.comparison.panels import group_maps
    from xrobust.comparison.places import common_folder
    from xrobust.comparison.tables import tables
    from xrobust.config.build import plain
    from xrobust.config.choices import choice_name
    from xrobust.files import replace_file
    from xrobust.report import comparison_figures as figures
    from xrobust.report.cells import picture
    from xrobust.report.comparison_page import comparison_page
    from xrobust.report.comparison_terminal import print_comparison

    config = plain(cfg)
    places, keys = texts(config, "runs"), texts(config, "group")
    require_some(runs=places)
    at_least("compare", 1, bootstrap=config["bootstrap"])
    at_least("compare", 0, panel_images=config["panel_images"])
    check_output(config)
    runs, left_out = read_places(places)
    groups = grouped(runs, keys, partial(choice_name, CONF))
    found = compare_runs(groups, left_out, resamples=config["bootstrap"], seed=config["seed"])
    if not found.quantities:
        raise UserError(f"runs={places}: none of them has an accuracy or an explanation metric")
    drawn: dict[str, Any] = {
        "metrics": figures.draw_metrics(found),
        "trajectories": figures.draw_trajectories(found),
        "scatter": figures.draw_scatter(found),
        "eps_sweep": figures.draw_eps_sweep(found),
    }
    pictured = group_maps(groups, config["panel_images"]) if config["panel_images"] else None
    if pictured is not None:
        drawn["panels"] = figures.draw_panels(*pictured)
    pictures = {name: picture(figure) for name, figure in drawn.items() if figure is not None}

    folder = Path(config["output"]) if config["output"] else common_folder(places)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in tables(found).items():
        replace_file(folder / name, text)
    for name, made in pictures.items():
        replace_file(folder / f"{name}.png", made.png)
        replace_file(folder / f"{name}.svg", made.svg)
    replace_file(folder / "compare.html", comparison_page(found, pictures))
    print_comparison(found, folder)


def texts(config: dict[str, Any], key: str) -> list[str]:
    """A value or several, as a list; null is none.

    Raises:
        UserError: if one of them is neither text nor a number.
    """
    value = config[key]
    listed = [] if value is None else value if isinstance(value, list) else [value]
    for one in listed:
        if isinstance(one, dict | list) or one is None:
            raise UserError(f"{key} must be a text or a list of texts, got {value!r}")
    return [str(one) for one in listed]


def main() -> None:
    """The command."""
    start(compare, CONFIG_NAME)


if __name__ == "__main__":
    main()
