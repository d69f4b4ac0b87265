"""Norm balls: exact radii, projections against independent solvers, draws that stay inside."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from xrobust.errors import UserError
from xrobust.threat import ThreatModel

BALLS = [
    ("linf", "8/255"),
    ("linf", 0.3),
    ("linf", 0),
    ("l2", "128/255"),
    ("l2", 0.002),
    ("l2", 0),
    ("l1", 12),
    ("l1", "0.05"),
    ("l1", 0),
]


def independent_norm(delta: Tensor, norm: str) -> np.ndarray:
    order = {"linf": np.inf, "l2": 2, "l1": 1}[norm]
    return np.array([np.linalg.norm(row.ravel(), ord=order) for row in delta.double().numpy()])


def cases(count: int) -> tuple[Tensor, Tensor]:
    """Random images, a quarter of them at corners of the box, and points far outside of everything."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(count, 1, 10, 10, generator=generator)
    x[: count // 4] = x[: count // 4].round()
    scale = torch.rand(count, 1, 1, 1, generator=generator)
    return x, x + scale * torch.randn(x.shape, generator=generator)


@pytest.mark.parametrize(("norm", "eps"), BALLS)
def test_projection_lies_in_ball_and_box_by_an_independent_float64_norm(norm: str, eps: object) -> None:
    threat = ThreatModel(norm, eps)
    x, far = cases(10_000)
    projected = threat.project(far, x)
    distance = independent_norm(projected.double() - x.double(), norm)
    assert (distance <= threat.radius * (1 + 1e-6)).all()
    assert projected.min() >= 0 and projected.max() <= 1
    assert threat.contains(projected, x).all()


@pytest.mark.parametrize(("norm", "eps"), BALLS)
def test_projection_leaves_inner_points_alone_and_is_idempotent(norm: str, eps: object) -> None:
    threat = ThreatModel(norm, eps)
    x, far = cases(500)
    projected = threat.project(far, x)
    assert torch.equal(threat.project(x, x), x)
    torch.testing.assert_close(threat.project(projected, x), projected, rtol=0, atol=2e-7)


@pytest.mark.parametrize(("norm", "eps"), BALLS)
def test_random_starts_are_inside_and_repeatable(norm: str, eps: object) -> None:
    threat = ThreatModel(norm, eps)
    x, _ = cases(200)
    starts = [threat.random_start(x, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert threat.contains(starts[0], x).all()
    assert torch.equal(starts[0], starts[1])
    assert threat.radius == 0 or not torch.equal(starts[0], starts[2])


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_random_starts_are_uniform_in_the_ball(norm: str) -> None:
    # In d dimensions P(‖δ‖ ≤ r·ε) = r^d for a uniform draw; away from the box, which would clip.
    threat = ThreatModel(norm, "0.01")
    x = torch.full((20_000, 3), 0.5)
    radii = threat.distance(threat.random_start(x, torch.Generator().manual_seed(0)), x) / threat.radius
    for r in (0.5, 0.8):
        assert abs((radii <= r).double().mean().item() - r**3) < 0.012


@pytest.mark.parametrize("norm", ["linf", "l1"])
def test_projection_is_the_nearest_point_of_ball_and_box(norm: str) -> None:
    threat = ThreatModel(norm, "0.7" if norm == "l1" else "0.2")
    generator = torch.Generator().manual_seed(0)
    for _ in range(15):
        x = torch.rand(1, 6, generator=generator, dtype=torch.float64)
        far = x + torch.randn(1, 6, generator=generator, dtype=torch.float64)
        ours = (threat.project(far, x) - far).square().sum().item()
        start, point = x[0].numpy(), far[0].numpy()
        # δ = a − b with a, b ≥ 0 makes ‖δ‖₁ = Σ a + b linear for the independent solver.
        room = np.concatenate([1 - start, start])
        if norm == "linf":
            room = np.minimum(room, threat.radius)
        limits = [] if norm == "linf" else [{"type": "ineq", "fun": lambda v: threat.radius - v.sum()}]
        solved = minimize(
            lambda v, start=start, point=point: ((start + v[:6] - v[6:] - point) ** 2).sum(),
            np.zeros(12),
            bounds=[(0, limit) for limit in room],
            constraints=limits,
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        )
        assert ours <= solved.fun + 1e-8


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_ascent_is_the_steepest_direction_of_unit_norm(norm: str) -> None:
    gradient = torch.randn(50, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    step = ThreatModel(norm, 1).ascent(gradient)
    dual = {"linf": 1, "l2": 2}[norm]
    torch.testing.assert_close((step * gradient).sum(1), gradient.norm(p=dual, dim=1))
    np.testing.assert_allclose(independent_norm(step, norm), 1, rtol=1e-12)


def test_l1_ascent_has_unit_norm_and_moves_only_the_largest_coordinates() -> None:
    gradient = torch.randn(5, 1, 20, 20, generator=torch.Generator().manual_seed(0))
    step = ThreatModel("l1", 1).ascent(gradient)
    np.testing.assert_allclose(independent_norm(step, "l1"), 1, rtol=1e-6)
    assert ((step != 0).flatten(1).sum(1) == 4).all()
    smallest_moved = gradient.abs().where(step != 0, torch.inf).flatten(1).amin(1)
    largest_unmoved = gradient.abs().where(step == 0, 0).flatten(1).amax(1)
    assert (smallest_moved >= largest_unmoved).all()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_ascent_of_a_zero_or_tiny_gradient_is_finite(norm: str) -> None:
    gradient = torch.zeros(2, 1, 4, 4)
    gradient[1, 0, 0, 0] = 1e-30
    step = ThreatModel(norm, 1).ascent(gradient)
    assert step[0].abs().sum() == 0
    assert step[1, 0, 0, 0] == 1


def test_norms_are_per_sample_not_over_the_batch() -> None:
    threat = ThreatModel("l2", 1)
    x = torch.full((2, 1, 3, 3), 0.5)
    far = x.clone()
    far[0] += 10
    assert torch.equal(threat.project(far, x)[1], x[1])
    torch.testing.assert_close(threat.distance(threat.project(far, x), x), torch.tensor([1.0, 0.0]).double())


def test_contains_refuses_nan_and_points_outside() -> None:
    threat = ThreatModel("linf", "0.1")
    x = torch.full((4, 1, 2, 2), 0.95)
    x_adv = x.clone()
    x_adv[0, 0, 0, 0] = torch.nan
    x_adv[1, 0, 0, 0] = 1.01
    x_adv[2, 0, 0, 0] = 0.84
    assert threat.contains(x_adv, x).tolist() == [False, False, False, True]


def test_radii_are_exact_fractions() -> None:
    assert ThreatModel("linf", "8/255").fraction == Fraction(8, 255)
    assert ThreatModel("linf", "39.6/255").fraction == Fraction(198, 1275)
    assert ThreatModel("linf", 0.3).fraction == Fraction(3, 10)
    assert str(ThreatModel("linf", "8/255")) == "linf ε=8/255"
    assert str(ThreatModel("l2", 0.5)) == "l2 ε=0.5" and str(ThreatModel("linf", 0.2)) == "linf ε=0.2"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"norm": "l7", "eps": 1}, ["threat.norm", "l7", "linf", "l2", "l1"]),
        ({"norm": "l2", "eps": -1}, ["threat.eps", "-1", "at least 0"]),
        ({"norm": "l2", "eps": "a/b"}, ["threat.eps", "a/b", "8/255"]),
        ({"norm": "l2", "eps": "1/0"}, ["threat.eps", "1/0"]),
        ({"norm": "l2", "eps": "8/255/2"}, ["threat.eps", "8/255/2"]),
        ({"norm": "l2", "eps": 1, "clip": (1, 0)}, ["threat.clip", "low < high"]),
    ],
)
def test_bad_values_are_refused_by_name(arguments: dict, words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        ThreatModel(**arguments)
    assert all(word in str(error.value) for word in words)
