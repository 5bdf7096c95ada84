"""The page's statistics are those of dlmlab.measure.stats."""

from __future__ import annotations

import numpy as np
import pytest

from dlmlab import page as package
from dlmlab.measure.stats import Interval, judge, mcnemar_p, paired_interval, proportion_interval
from dlmlab.picture.plots import pareto


@pytest.fixture(scope="module")
def script(browser):
    page = browser.new_page()
    page.add_script_tag(path=f"{package.__path__[0]}/static/stats.js")
    yield page.evaluate
    page.close()


def test_intervals_and_p_values_agree(script):
    rng = np.random.default_rng(0)
    cases = [[0, 0, 1], [0, 0, 100], [1, 0, 1], [0, 7, 7], [3, 3, 500]]
    for n in rng.integers(1, 2000, 60).tolist():
        gained, lost, _ = rng.multinomial(n, rng.dirichlet([1, 1, 3])).tolist()
        cases.append([gained, lost, n])
    found = script(
        "cases => cases.map(([gained, lost, n]) => ({...pairedInterval(gained, lost, n),"
        " p: mcnemarP(gained, lost), wilson: proportionInterval(gained, n)}))",
        cases,
    )
    for (gained, lost, n), each in zip(cases, found, strict=True):
        assert (each["low"], each["high"]) == pytest.approx(paired_interval(gained, lost, n), abs=1e-9)
        assert each["p"] == pytest.approx(mcnemar_p(gained, lost), rel=1e-6, abs=1e-12)
        assert tuple(each["wilson"].values()) == pytest.approx(proportion_interval(gained, n), abs=1e-9)


def test_verdicts_agree(script):
    for low, high in [(-0.01, 0.1), (-0.3, -0.1), (-0.1, 0.1), (-0.02, 0.1), (-0.1, -0.02)]:
        assert script(f"judge({{low: {low}, high: {high}}}, -0.02)") == judge(Interval(low, high), -0.02)


def test_pareto_fronts_agree(script):
    rng = np.random.default_rng(1)
    points = [{"forwards": float(f), "score": float(s)} for f, s in rng.integers(0, 8, (60, 2))]
    assert script("points => paretoFront(points, (point) => point.forwards)", points) == pareto(points)
