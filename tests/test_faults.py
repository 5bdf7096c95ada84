"""Runs survive what happens to them: the short form of tests/faults.py."""

from __future__ import annotations

import shutil

import pytest

from tests import faults


@pytest.mark.skipif(not shutil.which("bwrap"), reason="bubblewrap is not installed")
def test_a_run_survives_every_fault():
    faults.main(kills=3)
