"""The kernels compile for cards that are not here."""

import json
import os
import subprocess
import sys

import pytest

CONSUMER_SHARED, SERVER_SHARED = 99 * 1024, 227 * 1024
"""Bytes of shared memory that a program may have on cards of compute capability 8.6, 8.9 and 12.0; on 9.0 and 10.0,
which no consumer's card has."""
MOST_SHARED = {80: CONSUMER_SHARED, 89: CONSUMER_SHARED, 90: SERVER_SHARED, 100: SERVER_SHARED, 120: CONSUMER_SHARED}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, int]]:
    """Shared memory that each kernel takes on each card."""
    pytest.importorskip("triton")
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton"))}
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, "-m", "tests.kernel.cross_compile", *map(str, MOST_SHARED)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, dict[str, int]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("capability", MOST_SHARED)
def test_kernels_compile_and_fit_the_card_s_shared_memory(shared: dict[str, dict[str, int]], capability: int) -> None:
    own = shared[str(capability)]
    assert own
    assert max(own.values()) <= MOST_SHARED[capability], own
