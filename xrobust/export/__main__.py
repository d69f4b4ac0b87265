"""Take a finished model away: written in formats that other tools read, each verified on real images.

python -m xrobust.export run=runs/2026-01-31_12-00-00 'formats=[safetensors,pt2,onnx]'
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from xrobust.command import check_output, recorded_data, start
from xrobust.errors import at_least, require_some

CONFIG_NAME = "export"


def export(cfg: Any) -> None:
    """Check, load, write, verify, report: the job of a composed configuration."""
    # Heavy imports come here, so that `--cfg job` and `--help` answer at once.
    from xrobust.config.build import build, build_all, plain
    from xrobust.config.check import check_run
    from xrobust.export import exporting
    from xrobust.export.finished import FinishedModel, find_model, named
    from xrobust.export.loading import load_described
    from xrobust.report.export import print_export
    from xrobust.report.progress import busy

    config = plain(cfg)
    check_run(config)
    at_least("export", 2, check_images=config["check_images"])
    require_some(formats=config["formats"])
    check_output(config)
    formats = build_all(config["formats"], "formats")
    source = find_model(config["run"])
    model, description = load_described(source)
    data = config["data"] or recorded_data(description, f"run={config['run']}")
    datamodule = build(data, "data")
    images = datamodule.probe_set(config["check_images"], split="test")[0]
    finished = FinishedModel(
        model=model,
        description=named(description, datamodule.class_names),
        weights=source / "model.safetensors" if source.is_dir() else source,
        images=images,
    )
    folder = output_of(config, source)
    with busy("exporting") as status:
        rows = exporting.export(finished, formats, folder, watch=lambda name: status.update(f"exporting: {name}"))
    print_export(rows, folder)


def output_of(config: dict[str, Any], source: Path) -> Path:
    """`output`, or `export` in the run folder, or else beside the bundle or the checkpoint."""
    if config["output"] is not None:
        return Path(config["output"])
    run = Path(config["run"])
    return (run if source != run else run.resolve().parent) / "export"


def main() -> None:
    """The command."""
    start(export, CONFIG_NAME)


if __name__ == "__main__":
    main()
