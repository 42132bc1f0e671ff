"""The paper's similarity gap over the steps of a run."""

import pytest

from polyqwen.metrics.gap_reference import HIGH, LOW, reference_gap


def test_the_lines_go_through_the_printed_points_and_end_with_them() -> None:
    lines = reference_gap(0, 13_625)
    assert lines == {
        LOW: ([0, 120, 2000], [0.01, 0.07, 0.10]),
        HIGH: ([0, 120, 2000], [0.01, 0.07, 0.15]),
    }


def test_a_part_of_them_is_interpolated_at_its_ends() -> None:
    steps, low = reference_gap(60, 1060)[LOW]
    assert steps == [60, 120, 1060] and low == pytest.approx([0.04, 0.07, 0.085])
    assert reference_gap(60, 1060)[HIGH][1] == pytest.approx([0.04, 0.07, 0.11])
    assert reference_gap(0, 100)[LOW] == ([0, 100], [0.01, pytest.approx(0.06)])


def test_beyond_the_paper_there_is_nothing() -> None:
    assert reference_gap(2000, 13_625) == {} and reference_gap(5, 5) == {}
