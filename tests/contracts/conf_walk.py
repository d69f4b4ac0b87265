"""What conf/ offers: the contract tests find every method here, so a new one is tested by existing."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir

from xrobust.config.build import build, plain
from xrobust.config.schema import register
from xrobust.errors import UserError

CONF = Path(__file__).parents[2] / "conf"
# What no file can know: the user's own data, and that a method is for one norm.
GIVEN = {
    "data=arrays": ["data.path=images.npz", "data.num_classes=10", "data.channels=1", "data.image_size=8"],
    "data=folder": ["data.root=images", "data.num_classes=10", "data.channels=3", "data.image_size=8"],
    "attack=transfer": ["test_attack.surrogate=bundle"],
    "defense=hat": ["defense.helper=bundle"],
    "defense=emma": ["threat.norm=l2"],
    "defense=gloro": ["threat.norm=l2"],
    "defense=gloro_trades": ["threat.norm=l2"],
    "experiment=regularized_gradient_to_teacher": ["regularizers.gradient_to_teacher.target.model.path=bundle"],
    "regularizers=gradient_to_teacher": ["regularizers.gradient_to_teacher.target.model.path=bundle"],
}

# Half of the files that the default run composes; composing is what takes time.
WITHOUT_METRICS = ["metrics=[]", "metrics@card_metrics=[]"]

register()


def choices(group: str) -> list[str]:
    """The names that a group offers."""
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


# What Hydra itself fills in while a command runs.
AT_RUN_TIME = {
    "train": ["run_dir=runs/test", "hydra.run.dir=runs/test"],
    "evaluate": ["attack_name=test"],
    "certify": ["certifier_name=test"],
    "smooth": ["noise_name=test"],
    "export": ["run=runs/test"],
}


def composed(*overrides: str, command: str = "train") -> dict[str, Any]:
    """The resolved configuration of a command line."""
    return deepcopy(_composed(overrides, command))


@cache
def _composed(overrides: tuple[str, ...], command: str) -> dict[str, Any]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return plain(compose(command, [*AT_RUN_TIME.get(command, []), *overrides]))


def composed_together(group: str, *overrides: str, command: str = "train") -> dict[str, Any]:
    """What the files of a group say, by name, of a group of which several can be chosen: composing takes time."""
    names = choices(group)
    given = [override for name in names for override in GIVEN.get(f"{group}={name}", [])]
    return composed(f"{group}=[{','.join(names)}]", *given, *overrides, command=command)[group]


def built(group: str, name: str, *overrides: str) -> Any:
    """The object that `<group>=<name>` makes."""
    return build(composed(f"{group}={name}", *WITHOUT_METRICS, *overrides)[group], group)


def built_attack(name: str) -> Any:
    """The attack of that name, against the first of Linf, L2 and L1 that it is made for."""
    return _built_for_a_norm("attack", f"attack={name}", "certifier=ibp")


@cache
def built_certifier(name: str) -> Any:
    """The certifier of that name, for the first of Linf, L2 and L1 that it is made for."""
    return _built_for_a_norm("certifier", f"certifier={name}")


def _built_for_a_norm(key: str, *choice: str) -> Any:
    for norm, eps in (("linf", 0.2), ("l2", 1), ("l1", 4)):
        config = composed(*choice, f"threat.norm={norm}", f"threat.eps={eps}", command="certify")
        try:
            return build(config[key], key)
        except UserError as error:
            if "threat.norm" not in str(error):
                raise
    raise AssertionError(f"{' '.join(choice)} takes none of the norms")
