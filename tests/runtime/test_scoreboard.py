"""The demo's accounts against small runs that can be counted by hand."""

import numpy as np
import pytest

from streamlearn.core.records import Frame, Label
from streamlearn.runtime.scoreboard import Check, Scoreboard, Verdict


def frame(stream: str, first: int, labels: list[Label]) -> Frame:
    values = tuple(dict.fromkeys(labels))
    n = len(labels)
    return Frame(
        stream=stream,
        columns=("x",),
        numbers=np.zeros((n, 1)),
        label_codes=np.array([values.index(label) for label in labels], np.int32),
        label_values=values,
        event_time_s=np.zeros(n),
        event_ids=tuple(f"{stream}/{first + i}" for i in range(n)),
    )


def check(
    of: Frame, base: int, predicted: list[Label | None], verdict: Verdict = Verdict.SAME
) -> Check:
    return Check(of.stream, base, of.event_ids, tuple(predicted), verdict)


FIRST, SECOND = frame("p", 0, ["a", "a"]), frame("p", 2, ["b", "a"])


def test_a_whole_run() -> None:
    board = Scoreboard()
    board.sent(FIRST, 100.0)
    board.checked(check(FIRST, 0, [None, None]))
    board.swapped("p", 1, 100.010)
    assert board.complete
    board.sent(SECOND, 101.0)
    assert not board.complete
    board.checked(check(SECOND, 1, ["b", "b"]))
    assert not board.complete
    board.swapped("p", 2, 101.030)
    assert board.complete
    [row] = board.rows(now_s=103.030)
    assert (row.stream, row.sent, row.tested, row.version, row.same) == ("p", 4, 4, 2, 2)
    assert row.age_s == pytest.approx(2.0)
    summary = board.summary()
    assert summary.passed and summary.events == 4 and summary.updates == 2
    assert (summary.accuracy, summary.no_change, summary.majority) == (0.25, 0.25, 0.5)
    assert summary.p50_ms == pytest.approx(20.0)
    assert summary.events_per_s == pytest.approx(4 / 1.03)
    board.begin_pace(101.0)
    assert board.summary().events_per_s == 0.0
    assert summary.as_json()["subscriber_matches"] is True


def test_the_pace_is_counted_from_when_all_are_awake() -> None:
    board = Scoreboard()
    board.sent(FIRST, 100.0)
    board.checked(check(FIRST, 0, [None, None]))
    board.swapped("p", 1, 107.0)
    board.begin_pace(110.0)
    board.sent(SECOND, 110.0)
    board.checked(check(SECOND, 1, ["b", "b"]))
    board.swapped("p", 2, 110.5)
    assert board.summary().events_per_s == pytest.approx(2 / 0.5)


def test_streams_keep_their_own_no_change() -> None:
    board = Scoreboard()
    for stream, label in (("p", "a"), ("q", "b")):
        for at in range(2):
            one = frame(stream, at, [label])
            board.sent(one, 0.0)
            board.checked(check(one, at, [label]))
    assert board.summary().no_change == 0.5  # the second event of each


def test_several_versions_in_one_update() -> None:
    board = Scoreboard()
    board.sent(FIRST, 1.0)
    board.sent(SECOND, 2.0)
    board.checked(check(FIRST, 0, [None, None]))
    board.checked(check(SECOND, 1, ["a", "a"], Verdict.UNSEEN))
    board.swapped("p", 2, 3.0)
    summary = board.summary()
    assert board.complete and summary.passed
    assert summary.updates == 1 and summary.frames_unseen == 1
    assert summary.p50_ms == pytest.approx(1500.0)  # 2 s and 1 s


def test_a_frame_that_is_tested_again_by_the_same_version_was_not_learned_twice() -> None:
    board = Scoreboard()
    board.sent(FIRST, 1.0)
    for _ in range(2):
        board.checked(check(FIRST, 0, [None, None]))
        board.swapped("p", 1, 2.0)
    assert board.summary().passed and board.rows(2.0)[0].tested == 2


def test_learned_twice_shows() -> None:
    board = Scoreboard()
    board.sent(FIRST, 1.0)
    board.checked(check(FIRST, 0, [None, None]))
    board.checked(check(FIRST, 1, ["a", "a"]))
    board.swapped("p", 2, 2.0)
    summary = board.summary()
    assert summary.duplicated == 2 and not summary.passed


def test_a_version_too_many_shows() -> None:
    board = Scoreboard({"p": 7})
    board.sent(FIRST, 1.0)
    board.checked(check(FIRST, 7, ["a", "a"]))
    board.swapped("p", 9, 2.0)
    assert board.summary().duplicated == 1


def test_a_frame_that_was_never_tested_is_lost() -> None:
    board = Scoreboard()
    board.sent(FIRST, 1.0)
    board.sent(SECOND, 1.0)
    board.checked(check(SECOND, 0, [None, None]))
    board.swapped("p", 2, 2.0)
    assert board.summary().lost == 2


def test_a_frame_that_was_tested_but_never_learned_is_lost() -> None:
    board = Scoreboard({"p": 3})
    board.sent(FIRST, 1.0)
    board.sent(SECOND, 1.0)
    board.checked(check(FIRST, 3, ["a", "a"]))
    board.checked(check(SECOND, 4, ["a", "a"]))
    board.swapped("p", 4, 2.0)
    assert not board.complete and board.summary().lost == 2


def test_one_difference_fails_the_run_for_good() -> None:
    board = Scoreboard()
    board.sent(FIRST, 1.0)
    board.checked(check(FIRST, 0, [None, None], Verdict.DIFFERENT))
    board.checked(check(FIRST, 0, [None, None], Verdict.SAME))
    board.swapped("p", 1, 2.0)
    summary = board.summary()
    assert not summary.subscriber_matches and not summary.passed


def test_nothing_compared_is_no_match() -> None:
    board = Scoreboard()
    board.sent(FIRST, 1.0)
    assert not board.summary().subscriber_matches
    assert board.summary().p50_ms is None


def test_streams_of_others_do_not_count() -> None:
    board = Scoreboard()
    board.swapped("boiler", 5, 1.0)
    board.checked(check(frame("boiler", 0, ["a"]), 5, ["b"], Verdict.SAME))
    assert board.complete and board.summary().duplicated == 0 and board.summary().events == 0
    [row] = board.rows(2.0)
    assert (row.stream, row.sent, row.tested, row.version) == ("boiler", 0, 0, 5)
