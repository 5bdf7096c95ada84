import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CONSUMER_SHARED, SERVER_SHARED = 99 * 1024, 227 * 1024
"""Bytes of shared memory that a program may have on cards of compute capability 8.6, 8.9 and 12.0; on 9.0 and 10.0,
which no consumer's card has."""


@pytest.mark.parametrize("capability", [80, 89, 90, 100, 120])
def test_kernels_compile_for_cards_that_are_not_here(capability: int, tmp_path: Path) -> None:
    """And fit the card's shared memory, a consumer's wherever there are such."""
    pytest.importorskip("triton")
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, "-m", "tests.kernel.cross_compile", str(capability)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    shared = json.loads(done.stdout)
    assert shared
    assert max(shared.values()) <= (SERVER_SHARED if capability in (90, 100) else CONSUMER_SHARED), shared
