"""Kernels are tested where they run: on a GPU, and, those that Triton's interpreter knows, on a CPU in float32."""

from __future__ import annotations

import pytest
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPE = torch.bfloat16 if torch.cuda.is_available() else torch.float32
TOLERANCE = 6e-3 if torch.cuda.is_available() else 1e-5


@pytest.fixture
def near():
    """Assert that a result is as near to the exact one as its precision allows."""

    def check(result: torch.Tensor, exact: torch.Tensor, tolerance: float = TOLERANCE) -> None:
        assert result.isfinite().all()
        error = (result.double() - exact.double()).norm() / exact.double().norm()
        assert error < tolerance, f"off by {error:.2e}"

    return check


@pytest.fixture
def product(draw):
    """A product of so many parts, (M, N) when added up, with scales or without; and what it stands for."""
    from dlmlab.kernel.pointwise import Product

    def make(rows: int, columns: int, parts: int = 1, scaled: bool = False) -> tuple[Product, torch.Tensor]:
        values_SMN = draw(parts, rows, columns)
        if not scaled:
            return Product(values_SMN), values_SMN.double().sum(0)
        scale_M1, scale_N1 = draw(rows, 1).float().abs(), draw(columns, 1).float().abs()
        return Product(values_SMN, scale_M1, scale_N1), values_SMN.double().sum(0) * scale_M1 * scale_N1.T

    return make


@pytest.fixture
def draw():
    """Random numbers of a shape, from one seed for a test."""
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(shape, generator=generator).to(DEVICE, DTYPE)
