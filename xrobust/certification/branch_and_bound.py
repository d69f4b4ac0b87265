"""A complete verifier for ReLU networks: branch and bound on the signs of units."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from xrobust.attacks import Attack
from xrobust.certification.alpha_crown import open_forms_optimised
from xrobust.certification.base import Certifier
from xrobust.certification.bounds import Bounds
from xrobust.certification.branching import bounded
from xrobust.certification.certificate import CERTIFIED, TIMEOUT, UNKNOWN, Certificate
from xrobust.certification.domains import Domains, Layout, Queue
from xrobust.certification.falsifier import falsify_by_attack, falsify_by_images, require_attack_on
from xrobust.certification.leaf import solved
from xrobust.certification.optimise import Ascent
from xrobust.certification.problem import Problem
from xrobust.errors import at_least


@dataclass(frozen=True, kw_only=True)
class BranchAndBound(Certifier):
    """Splits units into z ≥ 0 and z ≤ 0 until every part is proven or a counter-example is found (Bunel et al. 2020).

    Each part is bounded with optimised slopes, and multipliers for the signs of its units (Wang et al. 2021, β-CROWN);
    parts without an unstable unit are linear programs. Samples are worked on together, each with a queue of its own,
    lowest bound first. For networks whose only nonlinear operations are ReLU and leaky ReLU it is complete; others may
    stay unknown. Results depend on the sample alone, unless `seconds` is given.

    Args:
        attack: looks for counter-examples first; none: only the corners that bounds point to are tried.
        max_domains: parts bounded for a sample; then it is a timeout.
        seconds: of a sample's share of the time; then it is a timeout, too.
        width: parts of a sample split in a round.
        steps, slope_rate, multiplier_rate: of the ascent for each part.
        root_steps: of the ascent on slopes before the first split.
    """

    attack: Attack | None = None
    max_domains: int = 2000
    seconds: float | None = None
    width: int = 32
    steps: int = 20
    slope_rate: float = 0.25
    multiplier_rate: float = 0.1
    root_steps: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        at_least(name, 1, max_domains=self.max_domains, width=self.width)
        at_least(name, 0, steps=self.steps, root_steps=self.root_steps)
        at_least(name, 0.0, slope_rate=self.slope_rate, multiplier_rate=self.multiplier_rate)
        if self.seconds is not None:
            at_least(name, 0.0, seconds=self.seconds)
        if self.attack is not None:
            require_attack_on(self, self.attack)

    def run(self, problem: Problem) -> Certificate:
        certificate = Certificate.blank(problem.x)
        if self.attack is not None:
            falsify_by_attack(certificate, problem, self.attack)
        rows = certificate.open.nonzero().flatten()
        if len(rows):
            part = problem.rows(rows)
            part.bound_by_intervals()
            part.bound_by_lines(part.crown())
            ascent = Ascent(steps=self.root_steps, slope_rate=self.slope_rate)
            part.raise_lower(open_forms_optimised(part, part.crown(), ascent))
            certificate.put(rows, _Search(self, part).verdicts())
        return certificate


class _Search:
    """The queues of a batch of samples."""

    def __init__(self, settings: BranchAndBound, problem: Problem):
        self.settings, self.problem = settings, problem
        self.root: Bounds = problem.crown()
        self.layout = Layout(problem.network)
        self.ascent = Ascent(
            steps=settings.steps, slope_rate=settings.slope_rate, multiplier_rate=settings.multiplier_rate
        )
        self.certificate = Certificate.of_margins(problem.x, problem.margin)
        self.queues = [Queue() for _ in range(len(problem))]
        self.least = torch.where(problem.lower > 0, problem.lower, torch.inf).amin(1)  # bound of what is concluded

    def verdicts(self) -> Certificate:
        self._add(self._roots())
        while active := [i for i, queue in enumerate(self.queues) if len(queue) and self._is_open(i)]:
            begun = time.perf_counter()
            parents = Domains.joined([part for i in active for part in self.queues[i].pop(self.settings.width)])
            linear = parents.unit < 0
            for i in linear.nonzero().flatten():
                self._leaf(parents.take(i.view(1)))
            children = parents.take((~linear).nonzero().flatten()).split()
            self._add(children)
            self._account(parents, children, time.perf_counter() - begun)
        return self._concluded()

    def _is_open(self, row: int) -> bool:
        return int(self.certificate.status[row]) == UNKNOWN

    def _roots(self) -> Domains:
        """A domain without splits for each form that is not proven."""
        row, form = (~(self.problem.lower > 0)).nonzero().unbind(1)
        dtype, device = torch.float32, row.device
        layout, shapes = self.layout, self.problem.network.shapes
        inputs = {user: self.root.network.inputs(user)[0] for user in layout.users}
        slopes = {
            user: self.root.network.operation(user).adaptive(self.root.boxes[source])[row]  # type: ignore[attr-defined]
            for user, source in inputs.items()
        }
        units = sum(shapes[source].numel() for source in layout.sources)
        like = torch.zeros(len(row), 0, dtype=dtype, device=device)
        return Domains(
            row,
            form,
            torch.zeros(len(row), units, dtype=torch.int8, device=device),
            self.problem.lower[row, form],
            layout.packed(slopes, layout.users, like).to(dtype),
            torch.zeros(len(row), units, dtype=dtype, device=device),
            torch.full_like(row, -1),
            self.problem.x[row],
        )

    def _add(self, domains: Domains) -> None:
        """Bound domains, try the corners they point to, and queue those that are not proven."""
        largest = max(shape.numel() for shape in self.problem.network.shapes)
        at_once = max(1, self.problem.chunk // (largest * len(self.problem.network.shapes)))
        for part in torch.arange(len(domains), device=domains.row.device).split(at_once):
            if not len(part):
                continue
            done = bounded(domains.take(part), self.root, self.problem.forms, self.layout, self.ascent)
            open_ones = ~(done.lower > 0)
            self._conclude(done.row[~open_ones], done.lower[~open_ones])
            left = done.take(open_ones.nonzero().flatten())
            if len(left):
                falsify_by_images(self.certificate, self.problem, left.row, left.corner)
            for i in range(len(left)):
                one = left.take(torch.tensor([i], device=left.row.device))
                self.queues[int(one.row)].push(one)

    def _leaf(self, domain: Domains) -> None:
        """Conclude a domain without an unstable unit: its bound is final."""
        row, lower = int(domain.row), domain.lower
        if self._is_open(row) and self.layout.complete:
            leaf = solved(domain, self.root, self.problem.forms, self.layout)
            lower = torch.full_like(lower, leaf.lower)
            if leaf.image is not None and not leaf.lower > 0:
                image = leaf.image.to(domain.corner).unsqueeze(0)
                falsify_by_images(self.certificate, self.problem, domain.row, image)
        self._conclude(domain.row, lower)

    def _conclude(self, row: Tensor, lower: Tensor) -> None:
        """Note the bounds of domains that are not worked on any more."""
        self.least.scatter_reduce_(0, row, lower, "amin")

    def _account(self, parents: Domains, children: Domains, seconds: float) -> None:
        """Count work and time; end samples whose budget is spent or that can no longer be certified."""
        counts = torch.bincount(children.row, minlength=len(self.problem))
        self.certificate.work.add_(counts)
        share = torch.bincount(parents.row, minlength=len(self.problem)) / len(parents)
        self.certificate.seconds.add_(share * seconds)
        for row, queue in enumerate(self.queues):
            spent = int(self.certificate.work[row]) >= self.settings.max_domains
            limit = self.settings.seconds
            spent |= limit is not None and float(self.certificate.seconds[row]) >= limit
            if len(queue) and spent and self._is_open(row):
                self.certificate.status[row] = TIMEOUT

    def _concluded(self) -> Certificate:
        """Certified where every part is proven; margins from the parts."""
        for row, queue in enumerate(self.queues):
            lowest = min(float(self.least[row]), queue.lowest)
            self.certificate.margin[row] = max(lowest, float(self.certificate.margin[row]))
            if self._is_open(row) and not len(queue) and lowest > 0:
                self.certificate.status[row] = CERTIFIED
        return self.certificate
