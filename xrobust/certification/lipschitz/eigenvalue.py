"""A proven upper bound of the largest eigenvalue of Gram matrices."""

from __future__ import annotations

import torch
from torch import Tensor

KRYLOV = 100  # dimension of the space in which the first guess is sought
EXHAUSTED = 1e-10  # a new direction this much smaller than the vector that it was split off is rounding
CLOSE = 1e-8  # how far above the guess the first attempt at a proof is
TIGHT = 1e-6  # how far apart what is proven and what is refuted may stay


def eigenvalue_bound(gram: Tensor, error: float) -> float:
    """c ≥ λ_max(G) for every G whose computed version, off by at most `error` in the spectral norm, is given.

    c is proven: c·1 − G has a Cholesky factor, so it is positive semidefinite up to the rounding of the
    factorisation, (d + 1)·u·tr(c·1 − G) (Rump 2006). The guess to start from, by Rayleigh and Ritz, only saves time: if
    it is too low for a proof, c is found by bisection, to 10⁻⁶.

    Args:
        gram: Hermitian positive semidefinite matrices (B, d, d) in float64 or complex128.
        error: ≥ 0.

    Returns:
        A bound for all matrices; NaN if one is not finite.
    """
    if not torch.isfinite(gram).all():
        return float("nan")
    size = gram.shape[-1]
    unit = torch.finfo(gram.dtype).eps
    guess = max(_rayleigh_ritz(gram), torch.finfo(torch.float64).tiny)
    below, above = 0.0, CLOSE
    while not _positive(guess * (1 + above), gram):
        below, above = above, 4 * above
    while above - below > TIGHT * (1 + above):
        middle = (below + above) / 2
        if _positive(guess * (1 + middle), gram):
            above = middle
        else:
            below = middle
    bound = guess * (1 + above)
    return bound * (1 + 8 * unit * (size + 2) * size) + error


def _positive(shift: float, gram: Tensor) -> bool:
    """Whether shift·1 − G has a Cholesky factor, for every matrix."""
    shifted = -gram
    shifted.diagonal(dim1=-2, dim2=-1).add_(shift)
    return bool((torch.linalg.cholesky_ex(shifted).info == 0).all())


def _rayleigh_ritz(gram: Tensor) -> float:
    """The largest Ritz value over a Krylov space, practically the largest eigenvalue."""
    batch, size = gram.shape[0], gram.shape[-1]
    start = torch.randn(size, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    vector = start.to(gram).expand(batch, -1, -1)
    basis = vector.new_zeros((batch, size, 0))
    for _ in range(min(KRYLOV, size)):
        before = torch.linalg.vector_norm(vector, dim=1, keepdim=True)
        for _ in range(2):  # once more, for what rounding leaves
            vector = vector - basis @ (basis.mH @ vector)
        length = torch.linalg.vector_norm(vector, dim=1, keepdim=True)
        # Where nothing but rounding is left, the space is invariant: columns of 0 add nothing.
        basis = torch.cat([basis, torch.where(length > EXHAUSTED * before, vector / length, 0)], 2)
        vector = gram @ basis[:, :, -1:]
    return float(torch.linalg.eigvalsh(basis.mH @ (gram @ basis)).amax())
