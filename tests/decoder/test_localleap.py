import pytest
from hydra import compose, initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st

from dlmlab.decoder.localleap import LocalLeap
from dlmlab.errors import UserError
from dlmlab.loop.trace import positions
from dlmlab.measure.reference import leading, localleap, localleap_paper
from dlmlab.paths import CONF
from dlmlab.run.build import decoder
from tests.decoder.steps import Row, chances, committed, quotas, rows, step_of, tensor

ROW: Row = [0.75, 0.25, 1.0, 0.5, 0.75, None, 0.875, 0.75]


def test_of_the_scheduled_places_the_sure_ones_are_anchors() -> None:
    """Scheduled are 2 and 6; only 2 is an anchor at 1.0; within 2 of it 0 and 4 reach 0.75."""
    assert committed(LocalLeap(1.0, 0.75, 2)(step_of([ROW], quota=2))) == [[0, 2, 4, 6]]
    assert committed(LocalLeap(1.0, 0.75, 1)(step_of([ROW], quota=2))) == [[2, 6]]
    assert committed(LocalLeap(0.875, 0.75, 1)(step_of([ROW], quota=2))) == [[2, 6, 7]]


def test_in_the_paper_every_sure_place_is_an_anchor() -> None:
    assert committed(LocalLeap(0.875, 0.75, 1, "all")(step_of([ROW], quota=9))) == [[2, 6, 7]]
    assert committed(LocalLeap(0.75, 0.875, 1, "all")(step_of([ROW]))) == [[2, 6]]
    assert committed(LocalLeap(1.0, 1.0, 0, "all")(step_of([[0.5, 0.25, 0.5]]))) == [[0]]


def test_marks_are_the_anchors_and_what_is_committed_for_their_sake_alone() -> None:
    for rule, quota, anchors, neighbours in (
        (LocalLeap(1.0, 0.75, 4), 2, [2], [0, 4]),  # 6 is near enough too, but scheduled
        (LocalLeap(0.875, 0.75, 1), 2, [2, 6], [7]),
        (LocalLeap(0.75, 0.875, 1, "all"), 2, [0, 2, 4, 6, 7], []),
    ):
        marks = rule.marks(step_of([ROW], quota=quota))
        assert {name: positions(mark) for name, mark in marks.items()} == {
            "anchor": [anchors],
            "neighbour": [neighbours],
        }


@given(rows, quotas, chances, chances, st.integers(0, 5))
def test_it_is_the_reference(row: Row, quota: int, kappa: float, tau: float, radius: int) -> None:
    for anchors, naive in (("scheduled", localleap), ("all", localleap_paper)):
        expected = naive(tensor([row])[0], quota, kappa, tau, radius)
        assert committed(LocalLeap(kappa, tau, radius, anchors)(step_of([row], quota))) == [expected]


@given(rows, quotas, chances, chances, st.integers(0, 5))
def test_it_commits_what_the_baseline_does_and_more(
    row: Row, quota: int, kappa: float, tau: float, radius: int
) -> None:
    [found] = committed(LocalLeap(kappa, tau, radius)(step_of([row], quota)))
    assert set(leading(tensor([row])[0], quota)) <= set(found)


@given(rows, chances, chances)
def test_with_tau_at_least_kappa_the_papers_rule_is_a_threshold_at_tau(row: Row, one: float, other: float) -> None:
    kappa, tau = sorted((one, other))
    found = committed(LocalLeap(kappa, tau, 3, "all")(step_of([row])))
    assert found == committed(LocalLeap(tau, tau, 0, "all")(step_of([row])))


def test_only_the_logs_rule_needs_a_schedule() -> None:
    assert LocalLeap(0.9, 0.75, 4).scheduled
    assert not LocalLeap(0.9, 0.75, 4, "all").scheduled


def test_anchors_are_one_or_the_other() -> None:
    with pytest.raises(UserError, match="anchors='both' is not one of scheduled, all"):
        LocalLeap(0.9, 0.75, 4, "both")


def test_a_model_without_values_takes_the_paper_s_where_it_is_told_to(monkeypatch):
    monkeypatch.setenv("DLMLAB_ROOT", str(CONF.parent))
    with initialize_config_dir(str(CONF), version_base="1.3"):
        unknown = compose("config", overrides=["model.path=/x"])
        told = compose("config", overrides=["model.path=/x", "localleap=paper"])
        calibrated = compose("config", overrides=["model=llada15", "localleap=paper"])
    with pytest.raises(UserError, match="localleap=paper"):
        decoder(unknown)
    assert decoder(told) == decoder(calibrated) == LocalLeap(kappa=0.9, tau=0.75, radius=4, anchors="scheduled")
