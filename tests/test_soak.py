"""The soak in its short form; python -m benchmarks.soak is the long one."""

from __future__ import annotations

from benchmarks.soak import Held, judge, soak
from tests.conftest import ROOT


def test_nothing_grows_and_nothing_stays_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("DLMLAB_ROOT", str(ROOT))
    monkeypatch.chdir(tmp_path)
    after = soak(240, tmp_path)
    assert len(after) == 6
    assert judge(after) == []


def test_what_grows_is_noticed():
    calm = Held(100, 3, 0, 6, 0)
    assert judge([calm] * 10) == []
    assert judge([calm._replace(memory=50), *[calm] * 9]) == [], "the warm-up does not count"
    [said] = judge([*[calm] * 5, calm._replace(memory=106), *[calm] * 4])
    assert "+6.0%" in said
    for name in ("threads", "processes", "descriptors", "files"):
        [said] = judge([*[calm] * 9, calm._replace(**{name: 9})])
        assert said.startswith(f"9 {name}")
