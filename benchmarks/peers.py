"""xrobust and the attack libraries that it is compared with, all called in the same words.

A library is a class, an attack one of its methods: (x, y, …) → x_adv. A method that a library lacks is an attack that
it lacks. Packages are imported when a library is made, so that each of them may be missing.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from torch import Tensor, nn

from xrobust.attacks import APGD, DDN, FAB, FGSM, FMN, PGD, CarliniWagnerL2, DeepFool, MinimumNorm, Square
from xrobust.config.build import build, plain
from xrobust.threat import ThreatModel

CONF = Path(__file__).resolve().parents[1] / "conf"
CAPITAL = {"linf": "Linf", "l2": "L2", "l1": "L1"}


class Library:
    """A library at work on one model.

    Args:
        model: images in [0, 1] → logits.
        classes: how many logits.
        seed: of the library's own random numbers; those of the global generators are seeded by the caller.
    """

    name: str
    package: str

    def __init__(self, model: nn.Module, classes: int, seed: int):
        self.model, self.classes, self.seed = model, classes, seed


class Xrobust(Library):
    name = package = "xrobust"

    @property
    def generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)

    def fgsm(self, x: Tensor, y: Tensor, norm: str, eps: float) -> Tensor:
        return FGSM(threat=ThreatModel(norm, eps))(self.model, x, y)

    def pgd(
        self, x: Tensor, y: Tensor, norm: str, eps: float, steps: int, step_size: float, keep: str = "last"
    ) -> Tensor:
        attack = PGD(threat=ThreatModel(norm, eps), steps=steps, step_size=step_size, keep=keep)
        return attack(self.model, x, y, generator=self.generator)

    def apgd(self, x: Tensor, y: Tensor, norm: str, eps: float, steps: int) -> Tensor:
        return APGD(threat=ThreatModel(norm, eps), steps=steps)(self.model, x, y, generator=self.generator)

    def square(self, x: Tensor, y: Tensor, norm: str, eps: float, queries: int) -> Tensor:
        return Square(threat=ThreatModel(norm, eps), queries=queries)(self.model, x, y, generator=self.generator)

    def fab(self, x: Tensor, y: Tensor, norm: str, eps: float, steps: int) -> Tensor:
        return FAB(threat=ThreatModel(norm, eps), steps=steps)(self.model, x, y, generator=self.generator)

    def autoattack(self, x: Tensor, y: Tensor, norm: str, eps: float) -> Tensor:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            chosen = ["+attack=autoattack_standard", "+threat=linf_0_2", f"threat.norm={norm}", f"threat.eps={eps}"]
            attack = build(plain(compose(overrides=chosen))["attack"], "attack")
        return attack(self.model, x, y, generator=self.generator)

    def ddn(self, x: Tensor, y: Tensor, norm: str, steps: int) -> Tensor:
        return self._nearest(DDN(threat=ThreatModel(norm, 1), steps=steps), x, y)

    def fmn(self, x: Tensor, y: Tensor, norm: str, steps: int) -> Tensor:
        return self._nearest(FMN(threat=ThreatModel(norm, 1), steps=steps), x, y)

    def deepfool(self, x: Tensor, y: Tensor, norm: str, steps: int) -> Tensor:
        return self._nearest(DeepFool(threat=ThreatModel(norm, 1), steps=steps), x, y)

    def carlini_wagner(
        self, x: Tensor, y: Tensor, norm: str, searches: int, steps: int, learning_rate: float
    ) -> Tensor:
        budget = {"search_steps": searches, "steps": steps, "learning_rate": learning_rate}
        return self._nearest(CarliniWagnerL2(threat=ThreatModel(norm, 1), **budget), x, y)  # type: ignore[arg-type]

    def _nearest(self, attack: MinimumNorm, x: Tensor, y: Tensor) -> Tensor:
        return attack.minimum_perturbation(self.model, x, y, generator=self.generator)[0]


class Foolbox(Library):
    name = package = "foolbox"

    def __init__(self, model: nn.Module, classes: int, seed: int):
        super().__init__(model, classes, seed)
        import foolbox

        self.attacks = foolbox.attacks
        self.wrapped = foolbox.PyTorchModel(model, bounds=(0, 1))

    def fgsm(self, x: Tensor, y: Tensor, norm: str, eps: float) -> Tensor:
        return self.attacks.FGSM().run(self.wrapped, x, y, epsilon=eps)

    def pgd(self, x: Tensor, y: Tensor, norm: str, eps: float, steps: int, step_size: float) -> Tensor:
        kind = {"linf": self.attacks.LinfPGD, "l2": self.attacks.L2PGD}[norm]
        return kind(abs_stepsize=step_size, steps=steps).run(self.wrapped, x, y, epsilon=eps)

    def ddn(self, x: Tensor, y: Tensor, norm: str, steps: int) -> Tensor:
        return self.attacks.DDNAttack(steps=steps).run(self.wrapped, x, y)

    def fmn(self, x: Tensor, y: Tensor, norm: str, steps: int) -> Tensor:
        kinds = {"linf": self.attacks.LInfFMNAttack, "l2": self.attacks.L2FMNAttack, "l1": self.attacks.L1FMNAttack}
        return kinds[norm](steps=steps).run(self.wrapped, x, y)

    def deepfool(self, x: Tensor, y: Tensor, norm: str, steps: int) -> Tensor:
        kind = {"linf": self.attacks.LinfDeepFoolAttack, "l2": self.attacks.L2DeepFoolAttack}[norm]
        return kind(steps=steps).run(self.wrapped, x, y)

    def carlini_wagner(
        self, x: Tensor, y: Tensor, norm: str, searches: int, steps: int, learning_rate: float
    ) -> Tensor:
        budget = {"binary_search_steps": searches, "steps": steps, "stepsize": learning_rate}
        return self.attacks.L2CarliniWagnerAttack(**budget).run(self.wrapped, x, y)

    def ead(self, x: Tensor, y: Tensor, norm: str, searches: int, steps: int) -> Tensor:
        attack = self.attacks.EADAttack(binary_search_steps=searches, steps=steps, decision_rule="L1")
        return attack.run(self.wrapped, x, y)


class Torchattacks(Library):
    name = package = "torchattacks"

    def __init__(self, model: nn.Module, classes: int, seed: int):
        super().__init__(model, classes, seed)
        import torchattacks

        self.attacks = torchattacks

    def fgsm(self, x: Tensor, y: Tensor, norm: str, eps: float) -> Tensor:
        return self.attacks.FGSM(self.model, eps=eps)(x, y)

    def pgd(self, x: Tensor, y: Tensor, norm: str, eps: float, steps: int, step_size: float) -> Tensor:
        kind = {"linf": self.attacks.PGD, "l2": self.attacks.PGDL2}[norm]
        return kind(self.model, eps=eps, alpha=step_size, steps=steps)(x, y)

    def apgd(self, x: Tensor, y: Tensor, norm: str, eps: float, steps: int) -> Tensor:
        return self.attacks.APGD(self.model, CAPITAL[norm], eps, steps, seed=self.seed)(x, y)

    def square(self, x: Tensor, y: Tensor, norm: str, eps: float, queries: int) -> Tensor:
        return self.attacks.Square(self.model, CAPITAL[norm], eps, queries, seed=self.seed)(x, y)

    def fab(self, x: Tensor, y: Tensor, norm: str, eps: float, steps: int) -> Tensor:
        return self.attacks.FAB(self.model, CAPITAL[norm], eps, steps, seed=self.seed, n_classes=self.classes)(x, y)

    def autoattack(self, x: Tensor, y: Tensor, norm: str, eps: float) -> Tensor:
        attack = self.attacks.AutoAttack(self.model, CAPITAL[norm], eps, n_classes=self.classes, seed=self.seed)
        return attack(x, y)


class PyAutoAttack(Library):
    """The code of AutoAttack's authors."""

    name = package = "pyautoattack"

    def __init__(self, model: nn.Module, classes: int, seed: int):
        super().__init__(model, classes, seed)
        from pyautoattack import autoattack, autopgd_base, fab_pt, square

        self.modules = {"apgd": autopgd_base, "autoattack": autoattack, "fab": fab_pt, "square": square}
        self.shared = {"seed": seed, "device": "cpu"}

    def apgd(self, x: Tensor, y: Tensor, norm: str, eps: float, steps: int) -> Tensor:
        kind = self.modules["apgd"].APGDAttack
        return kind(self.model, n_iter=steps, norm=CAPITAL[norm], eps=eps, **self.shared).perturb(x, y)

    def square(self, x: Tensor, y: Tensor, norm: str, eps: float, queries: int) -> Tensor:
        kind = self.modules["square"].SquareAttack
        return kind(self.model, n_queries=queries, norm=CAPITAL[norm], eps=eps, **self.shared).perturb(x, y)

    def fab(self, x: Tensor, y: Tensor, norm: str, eps: float, steps: int) -> Tensor:
        kind = self.modules["fab"].FABAttack_PT
        return kind(self.model, n_iter=steps, norm=CAPITAL[norm], eps=eps, **self.shared).perturb(x, y)

    def autoattack(self, x: Tensor, y: Tensor, norm: str, eps: float) -> Tensor:
        attack = self.modules["autoattack"].AutoAttack(self.model, norm=CAPITAL[norm], eps=eps, **self.shared)
        return attack.run_standard_evaluation(x, y, batch_size=len(x))[0]


class ART(Library):
    """The Adversarial Robustness Toolbox."""

    name = "ART"
    package = "adversarial-robustness-toolbox"

    def __init__(self, model: nn.Module, classes: int, seed: int):
        super().__init__(model, classes, seed)
        from art.attacks import evasion
        from art.estimators.classification import PyTorchClassifier

        logging.getLogger("art").setLevel(logging.ERROR)
        self.attacks = evasion
        self.classifier = PyTorchClassifier

    def fgsm(self, x: Tensor, y: Tensor, norm: str, eps: float) -> Tensor:
        return self._run(self.attacks.FastGradientMethod, x, y, norm, eps=eps)

    def pgd(self, x: Tensor, y: Tensor, norm: str, eps: float, steps: int, step_size: float) -> Tensor:
        budget = {"eps": eps, "eps_step": step_size, "max_iter": steps, "num_random_init": 1, "verbose": False}
        return self._run(self.attacks.ProjectedGradientDescentPyTorch, x, y, norm, **budget)

    def apgd(self, x: Tensor, y: Tensor, norm: str, eps: float, steps: int) -> Tensor:
        budget = {"eps": eps, "eps_step": 2 * eps, "max_iter": steps, "nb_random_init": 1, "verbose": False}
        kind = self.attacks.AutoProjectedGradientDescent
        return self._run(kind, x, y, norm, loss_type="cross_entropy", **budget)

    def square(self, x: Tensor, y: Tensor, norm: str, eps: float, queries: int) -> Tensor:
        return self._run(self.attacks.SquareAttack, x, y, norm, eps=eps, max_iter=queries, verbose=False)

    def _run(self, kind: Any, x: Tensor, y: Tensor, norm: str, **budget: Any) -> Tensor:
        classifier = self.classifier(
            self.model,
            nn.CrossEntropyLoss(),
            input_shape=x.shape[1:],
            nb_classes=self.classes,
            clip_values=(0, 1),
            device_type="cpu",
        )
        order = {"linf": np.inf, "l2": 2}[norm]
        attack = kind(classifier, norm=order, batch_size=len(x), **budget)
        return torch.from_numpy(attack.generate(x.numpy(), y.numpy()))


PEERS: tuple[type[Library], ...] = (Foolbox, Torchattacks, PyAutoAttack, ART)
