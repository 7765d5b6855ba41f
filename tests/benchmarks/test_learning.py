"""The benchmark's own arithmetic against slow, obvious versions; no peers needed, but for one."""

import importlib.util
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import learning, page, prequential
from benchmarks.class_incremental import SHRINKAGE, MeansOrDiscriminant
from benchmarks.context_peer import ContextForest
from benchmarks.jobs import SCALES, Job, Row, Skip
from benchmarks.streams_at_hand import STREAMS
from streamlearn.core.settings import LearnerSettings
from streamlearn.evaluation import evaluate

needs_river = pytest.mark.skipif(
    importlib.util.find_spec("river") is None, reason="needs river: make peers"
)
QUICK = SCALES["quick"]


def job(who: str, setting: str = "breast_cancer, step 32") -> Job:
    return Job("prequential", setting, who, (0,), QUICK, None)


def row(who: str = "a", seed: int = 0, **figures: float | None) -> Row:
    return Row("prequential", "digits, step 32", who, seed, "quick", figures, made="today")


def test_our_row_is_what_evaluate_says() -> None:
    """Cutting at the prefix changes nothing."""
    (ours,) = prequential.run(job(prequential.OURS))
    frames = list(STREAMS["breast_cancer"].frames(32, None, None))
    whole = evaluate(frames, LearnerSettings(step_events=32))
    assert ours.events == whole.n == 569
    assert ours.figures["whole"] == whole.accuracy
    first = evaluate([frames[0].rows(0, 512)], LearnerSettings(step_events=32))
    assert ours.figures["prefix"] == first.accuracy and ours.notes["prefix"] == 512
    assert ours.figures["majority"] == whole.majority and ours.cpu_s > 0
    assert ours.peak_mib is not None


def test_a_peer_is_compared_on_the_same_events() -> None:
    frames = list(STREAMS["breast_cancer"].frames(32, None, None))
    peers = evaluate(frames, LearnerSettings(step_events=32), compare=["sgd"]).peers
    (fast,) = prequential.run(job("sklearn SGDClassifier"))
    assert fast.figures["whole"] == peers[0].accuracy


@needs_river
def test_a_slow_peer_stops_at_the_prefix() -> None:
    (slow,) = prequential.run(replace(job("river ARF"), scale=replace(QUICK, prefix=64)))
    assert slow.events == 64 and slow.figures["whole"] is None and slow.figures["prefix"]


def test_streams_that_are_not_here_are_named(tmp_path: Path) -> None:
    jobs, skipped = learning.all_jobs(learning.PARTS, QUICK, tmp_path)
    assert {"elec2", "class-incremental", "cold", "representatives"} <= {s.what for s in skipped}
    assert any(one.setting == "digits, step 32" for one in jobs)
    assert all(one.seeds == (0,) for one in jobs)


def test_class_means_and_shared_covariance_are_the_batch_ones() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 300)
    x = rng.normal(size=(300, 4)) @ rng.normal(size=(4, 4)) + 2.0 * rng.normal(size=(3, 4))[y]
    shared = MeansOrDiscriminant(4, shared=True)
    for rows in np.split(np.arange(300), [1, 7, 150]):
        shared.learn(x[rows], y[rows])
    means = np.stack([x[y == c].mean(axis=0) for c in range(3)])
    scatter = sum(np.cov(x[y == c].T, bias=True) * (y == c).sum() for c in range(3))
    np.testing.assert_allclose(shared.scatter, scatter, rtol=1e-9)
    spread = (1 - SHRINKAGE) * scatter / 300 + SHRINKAGE * np.eye(4)
    away = x[:, None] - means
    distance = np.einsum("ncd,de,nce->nc", away, np.linalg.inv(spread), away)
    assert (shared.predict(x) == distance.argmin(axis=1)).all()
    plain = MeansOrDiscriminant(4, shared=False)
    plain.learn(x, y)
    assert (plain.predict(x) == (away**2).sum(axis=2).argmin(axis=1)).all()


@needs_river
def test_the_forest_sees_what_is_new_and_recent_labels() -> None:
    frame = next(STREAMS["breast_cancer"].frames(32, 96, None))
    forest = ContextForest(0)
    for start in (0, 32, 64):
        step = frame.rows(start, start + 32)
        forest.predict(step)
        if start < 64:
            forest.learn(step)
    d, known = len(frame.columns), frame.numbers[:64]
    z = np.clip((frame.numbers[64:] - known.mean(axis=0)) / known.std(axis=0), -5, 5)
    seen = np.array([list(event.values()) for event in forest.seen])
    np.testing.assert_allclose(seen[:, :d], z, rtol=1e-4, atol=1e-4)
    last, *_ = seen[0, 4 * d :].reshape(-1, 4).T
    assert last[list(forest._labels).index(frame.labels()[63] or "")] == 1 and last.sum() == 1
    assert (seen[:, 4 * d :] == seen[0, 4 * d :]).all()  # frozen over a step


def test_the_newest_row_counts_and_a_torn_one_does_not(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    rows = [row(whole=0.5), row(seed=1, whole=0.6), row(whole=0.7)]
    lines = [json.dumps(asdict(one)) for one in rows]
    out.write_text("\n".join([*lines, lines[0][:40]]), encoding="utf-8")
    assert [one.figures["whole"] for one in learning.read_rows(out)] == [0.7, 0.6]
    assert learning.read_rows(tmp_path / "none") == []


def test_done_is_left_out_unless_asked_for_again() -> None:
    done = {row(prequential.OURS).key()}
    ours = job(prequential.OURS, "digits, step 32")
    assert learning.wanted(ours, [""], set(), [])
    assert not learning.wanted(ours, [""], done, [])
    assert learning.wanted(ours, [""], done, ["streamlearn"])
    assert learning.wanted(replace(ours, seeds=(1,)), [""], done, [])
    assert not learning.wanted(ours, ["river"], set(), [])


def test_what_is_asked_for_first_is_first() -> None:
    first = ["river ARF", "digits"]
    assert [learning.rank(job(who), first) for who in ("river ARF", "b")] == [0, 2]
    assert learning.rank(job("b", "digits, step 32"), first) == 1


def test_the_page_shows_means_spread_and_what_is_left_out() -> None:
    told = {"prefix": 0.75, "no-change": 0.1, "delayed": 0.2, "majority": 0.3}
    rows = [
        replace(row(who, seed, whole=share + 0.01 * seed, **told), events=10, notes={"prefix": 8})
        for who, share in ((prequential.OURS, 0.9), ("river ARF", 0.8))
        for seed in (0, 1)
    ]
    text = page.text(rows, [Skip("elec2", "not here")], QUICK, "today")
    assert "| digits | 32 | 10 | **.905 +- .005** | .100 | .200 | .300 |" in text
    assert "| river ARF | .750 +- .000 | .805 +- .005 |" in text
    old = page.text(rows, [], QUICK, "abc")
    assert f"digits{page.OLDER} | 32" in old and f"| streamlearn{page.OLDER} |" in old
    assert "- elec2: not here" in text and "Cold" not in text


def test_what_has_no_row_is_named() -> None:
    jobs = [job("a", "digits, step 32"), job("b", "digits, step 32")]
    assert learning.missing(jobs, [row("a")]) == [("digits, step 32", "b")]


@pytest.mark.parametrize(
    ("values", "said"),
    [([0.5], ".500"), ([-0.0321], "-.032"), ([1.0, 1.0], "1.000 +- .000"), ([None], "")],
)
def test_figures_are_short(values: list[float | None], said: str) -> None:
    assert page.shown(values) == said
