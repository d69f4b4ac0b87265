"""What every certifier shares: the frame around `run` that makes its verdicts sound and leaves no trace."""

from __future__ import annotations

import copy
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from xrobust.certification.certificate import CERTIFIED, FALSIFIED, Certificate
from xrobust.certification.graph import Graph
from xrobust.certification.intermediate import CHUNK
from xrobust.certification.problem import Problem
from xrobust.certification.trace import trace
from xrobust.errors import UserError, at_least, one_of
from xrobust.frame import untouched, without_tf32
from xrobust.randomness import Generator, default_generator, subset
from xrobust.threat import ThreatModel, require_threat_model

PRECISIONS = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True, kw_only=True)
class Certifier(ABC):
    """(model, x, y) → for each sample, whether every image of the threat model is given the label.

    Sound for the network that the weights define in exact arithmetic: bounds are moved outwards by a bound of what
    rounding may have changed in computing them. Inequalities are strict; a tie or a NaN is never certified, and an
    operation without a known bound raises.

    Args:
        threat: the images to be safe from; of one of the `norms` that the certifier is for.
        precision: "float64" or "float32", in which bounds are computed. In float32 the allowance for rounding costs
            some certificates.
        batch_size: samples bounded at once.
        chunk: how many numbers a tensor of coefficients may have; this bounds the memory.
    """

    norms: ClassVar[tuple[str, ...]] = ("linf",)

    threat: ThreatModel
    precision: str = "float64"
    batch_size: int = 64
    chunk: int = CHUNK

    def __post_init__(self) -> None:
        name = type(self).__name__
        require_threat_model(name, self.threat)
        if self.threat.norm not in self.norms:
            raise one_of(f"{name}: threat.norm", self.threat.norm, self.norms)
        if self.precision not in PRECISIONS:
            raise one_of(f"{name}.precision", self.precision, PRECISIONS)
        at_least(name, 1, batch_size=self.batch_size, chunk=self.chunk)

    def certify(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: Generator | None = None) -> Certificate:
        """Verdicts on a batch.

        Args:
            model: images in [0, 1] → logits (N, K).
            x: (N, C, H, W) in the threat model's box, on the device of the model.
            y: (N,) labels.
            generator: the only source of randomness, for attacks that look for counter-examples; none means a fresh
                one with seed 0.

        Raises:
            UnsupportedOperation: naming an operation and its module.
            UserError: for images outside of the threat model's box.
            RuntimeError: if a counter-example is none, or a certified sample is misclassified.

        Works under `no_grad` and `inference_mode`; the model is afterwards as before.
        """
        self.threat.require_images(x)
        with untouched(model, x), torch.no_grad(), without_tf32():  # rounding is accounted for as float32's
            x = x.detach().clone()
            generator = default_generator(x.device) if generator is None else generator
            graph = self._graph(model, x)
            parts = []
            for rows in torch.arange(len(x), device=x.device).split(self.batch_size):
                begun = time.perf_counter()
                part = self._batch(model, graph, x[rows], y[rows], subset(generator, rows))
                part.seconds[:] = (time.perf_counter() - begun) / len(rows)
                parts.append(part)
            return Certificate.joined(parts) if parts else Certificate.blank(x)

    def _graph(self, model: nn.Module, x: Tensor) -> Graph:
        """The graph of the model in the precision of the certifier."""
        dtype = PRECISIONS[self.precision]
        image = x[0] if len(x) else x.new_zeros(x.shape[1:])
        return trace(copy.deepcopy(model).to(dtype).eval(), image.to(dtype))

    def _batch(self, model: nn.Module, graph: Graph, x: Tensor, y: Tensor, generator: Generator) -> Certificate:
        dtype = PRECISIONS[self.precision]
        problem = Problem(model, graph.network(), self.threat, x, y, generator, dtype, self.chunk)
        right = problem.predictions(x) == y
        certificate = Certificate.blank(x)
        certificate.falsify((~right).nonzero().flatten(), x[~right])
        rows = right.nonzero().flatten()
        if len(rows):
            certificate.put(rows, self.run(problem.rows(rows)))
        _require_sound(certificate, problem, self)
        return certificate

    @abstractmethod
    def run(self, problem: Problem) -> Certificate:
        """Verdicts on samples that the model gets right."""

    @property
    def members(self) -> list[str]:
        """The names of the certifiers that take turns; one, unless it is composed."""
        return [type(self).__name__]

    def describe(self) -> dict[str, Any]:
        """The protocol as plain containers: the certifier's name, every hyper-parameter, and a line to show."""
        return {**_plain(self), "summary": str(self)}

    def __str__(self) -> str:
        return f"{type(self).__name__} ({self.threat}, {self.precision})"


def _plain(value: Any) -> Any:
    if isinstance(value, ThreatModel):
        return {"norm": value.norm, "eps": str(value.fraction), "clip": list(value.clip)}
    if is_dataclass(value):
        return {"name": type(value).__name__, **{f.name: _plain(getattr(value, f.name)) for f in fields(value)}}
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return value if isinstance(value, bool | int | float | None) else str(value)


def _require_sound(certificate: Certificate, problem: Problem, certifier: Certifier) -> None:
    """Certified means a positive margin; falsified means an image of the threat model with another label."""
    certified = certificate.status == CERTIFIED
    if not (certificate.margin[certified] > 0).all():
        raise RuntimeError(f"{certifier} certified a sample without a positive bound")
    falsified = (certificate.status == FALSIFIED).nonzero().flatten()
    if len(falsified):
        images = certificate.counter_example[falsified]
        inside = problem.threat.contains(images, problem.x[falsified])
        if not inside.all() or (problem.predictions(images) == problem.y[falsified]).any():
            raise RuntimeError(f"{certifier} returned a counter-example that is none")


def require_members(place: str, members: Mapping[str, Certifier], threat: ThreatModel) -> None:
    """Refuse a composition without members, or with members for other threat models.

    Raises:
        UserError: naming the member.
    """
    if not members:
        raise UserError(f"{place} must have at least one member")
    for name, member in members.items():
        if member.threat != threat:
            raise UserError(f"{place}.{name} is for {member.threat}, but {place} is for {threat}")
