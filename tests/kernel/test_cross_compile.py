import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CONSUMER_SHARED = 99 * 1024
"""Bytes of shared memory that a program may have on cards of compute capability 8.6, 8.9 and 12.0."""


@pytest.mark.parametrize("capability", [80, 89, 90, 100, 120])
def test_kernels_compile_for_cards_that_are_not_here(capability: int, tmp_path: Path) -> None:
    """And fit the shared memory of a consumer's card."""
    pytest.importorskip("triton")
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, "-m", "tests.kernel.cross_compile", str(capability)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    shared = json.loads(done.stdout)
    assert shared
    assert max(shared.values()) <= CONSUMER_SHARED, shared
