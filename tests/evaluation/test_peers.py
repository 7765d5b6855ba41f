"""Peers see each event before its label, and every class and column whenever it comes."""

import importlib.util
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from streamlearn.core.records import IMAGE_SIDE, Frame, ImageColumn, Label
from streamlearn.core.settings import LearnerSettings
from streamlearn.core.steps import step_cuts
from streamlearn.errors import InputError
from streamlearn.evaluation import evaluate
from streamlearn.evaluation.peer_models import PLACES, LinearPeer, NetworkPeer, Peer, RiverPeer
from streamlearn.evaluation.peers import KNOWN, Peers, check_peers

needs_river = pytest.mark.skipif(
    importlib.util.find_spec("river") is None, reason="needs river: pip install river"
)


def frames(n: int, *, classes: Sequence[Label] = ("a", "b"), seed: int = 0) -> list[Frame]:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, len(classes), n).astype(np.int32)
    numbers = rng.normal(3.0 * codes[:, None], 1.0, (n, 3)) * [1.0, 100.0, 0.01]
    whole = Frame("s", ("x", "y", "z"), numbers, codes, tuple(classes), np.arange(float(n)))
    return [whole.rows(i, min(i + 64, n)) for i in range(0, n, 64)]


def with_words(frame: Frame) -> Frame:
    words = tuple(
        f"it is {'warm' if code else 'cold'} {k}" for k, code in enumerate(frame.label_codes)
    )
    return replace(frame, columns=(), numbers=np.zeros((len(frame), 0)), texts={"t": words})


def score(peer: Peer, given: list[Frame]) -> list[bool]:
    """As a plain loop over steps of 16 does it."""
    right: list[bool] = []
    for k, frame in enumerate(given):
        for cut in step_cuts(len(frame), 16, first=k == 0):
            step = frame.rows(*cut)
            right += [a == b for a, b in zip(peer.predict(step), step.labels(), strict=True)]
            peer.learn(step)
    return right


def test_a_peer_is_tested_before_it_learns() -> None:
    given = frames(600)
    peers = Peers(["sklearn"], step=16, seed=0)
    told = [
        right for frame in given for right in peers.test_then_learn(frame)["sklearn SGDClassifier"]
    ]
    assert told == score(LinearPeer(0), given)
    assert told[0] is False and np.mean(told) > 0.95
    (result,) = peers.results()
    assert result.accuracy == np.mean(told) and result.events_per_s > 0
    shuffled = [
        replace(f, label_codes=np.random.default_rng(9).permutation(f.label_codes)) for f in given
    ]
    assert np.mean(score(LinearPeer(0), shuffled)) < 0.6


def test_peers_see_pixels() -> None:
    given = []
    for frame in frames(600):
        bright = 200 * (frame.label_codes[:, None, None] * np.tri(IMAGE_SIDE, dtype=np.uint8))
        image = ImageColumn.of(bright.astype(np.uint8))
        given.append(replace(frame, columns=(), numbers=frame.numbers[:, :0], images={"i": image}))
    peers = Peers(["sklearn"], step=16, seed=0)
    for frame in given:
        peers.test_then_learn(frame)
    assert peers.results()[0].accuracy > 0.95


def test_the_linear_peer_takes_new_classes_columns_and_gaps() -> None:
    two, more = frames(320), frames(640, classes=("a", "b", 3, 4), seed=1)
    gaps = [replace(f, numbers=np.where(f.numbers > 250, np.nan, f.numbers)) for f in more]
    peer = LinearPeer(0)
    assert np.mean(score(peer, two)) > 0.9
    assert np.mean(score(peer, gaps)[320:]) > 0.5
    wide = [replace(f, columns=("w", *f.columns[1:])) for f in more]
    assert np.mean(score(peer, wide)[320:]) > 0.55  # chance is .25, lines don't suit it


def test_the_linear_peer_reads_words() -> None:
    given = [with_words(frame) for frame in frames(640)]
    assert np.mean(score(LinearPeer(0), given)[320:]) > 0.95


def test_the_network_peer_takes_new_classes_and_no_words() -> None:
    two, more = frames(960), frames(3200, classes=("a", "b", 3, 4), seed=1)
    peer = NetworkPeer(0)
    assert np.mean(score(peer, two)[480:]) > 0.9
    assert np.mean(score(peer, more)[2560:]) > 0.6  # chance is .25
    many = frames(2 * PLACES + 64, classes=tuple(range(PLACES + 8)), seed=2)
    assert len(score(peer, many)) == 2 * PLACES + 64
    words = [replace(frame, texts=with_words(frame).texts) for frame in two]
    assert score(NetworkPeer(0), words) == score(NetworkPeer(0), two)  # it leaves them out


@needs_river
@pytest.mark.parametrize("name", sorted(set(KNOWN) - {"multinomial-nb"}))
def test_each_peer_learns_when_asked_for(name: str) -> None:
    strings = [
        replace(frame, texts={"s": tuple("uv"[code] for code in frame.label_codes)})
        for frame in frames(320)
    ]
    (result,) = evaluate(strings, LearnerSettings(step_events=16), compare=[name]).peers
    assert result.name == KNOWN[name].name and result.accuracy > 0.6


def test_unlabelled_and_single_classes_are_no_error() -> None:
    given = frames(128, classes=("a",))
    assert np.mean(score(LinearPeer(0), given)) > 0.98
    bare = replace(given[0], label_codes=np.full(64, -1, np.int32))
    assert Peers(["sklearn"], step=16, seed=0).test_then_learn(bare)["sklearn SGDClassifier"] == []


@needs_river
def test_rivers_trees_and_words() -> None:
    result = evaluate(frames(640), LearnerSettings(step_events=16), compare=("river", "sklearn"))
    found = {peer.name: peer.accuracy for peer in result.peers}
    assert set(found) == {"river ARF", "river HoeffdingTree", "sklearn SGDClassifier"}
    assert min(found.values()) > 0.85
    words = [with_words(frame) for frame in frames(640)]
    (naive,) = evaluate(words, LearnerSettings(step_events=16), compare=["river"]).peers
    assert naive.name == "river MultinomialNB" and naive.accuracy > 0.9


def test_a_tree_sees_strings_of_few_values_only() -> None:
    class Spy:
        """Stands for a river model."""

        def __init__(self) -> None:
            self.seen: list[set[str]] = []

        def predict_one(self, row: dict[str, float | str]) -> Label | None:
            self.seen.append(set(row))
            return None

        def learn_one(self, row: dict[str, float | str], label: Label) -> None: ...

    spy = Spy()
    frame = frames(64)[0]
    texts = {"few": ("u", "v") * 32, "many": tuple(map(str, range(64)))}
    score(RiverPeer(spy, words=False), [replace(frame, texts=texts)])
    assert spy.seen[0] == {"x", "y", "z", "few", "many"} and spy.seen[-1] == {"x", "y", "z", "few"}


def test_what_cannot_be_compared_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"knows sklearn, river, .*, not 'weka'"):
        check_peers(["weka"])
    monkeypatch.setitem(__import__("sys").modules, "river", None)
    with pytest.raises(InputError, match="pip install"):
        check_peers(["river"])
