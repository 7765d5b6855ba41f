"""Peers: other people's learners on the same events, tested and learned at the same steps.

In: frames, and who is asked for. Out: a PeerResult each. `peer_models` has them; here is who there
is, and the run. They get images as 784 numbers. All on one thread, as the learner is: with more,
these small steps take longer.

| asked for          | is                                                        | reads    |
|--------------------|-----------------------------------------------------------|----------|
| sklearn            | sgd                                                       |          |
| river              | hoeffding-tree and arf, or multinomial-nb                 |          |
| sgd                | scikit-learn's SGDClassifier                              | all      |
| mlp                | scikit-learn's MLPClassifier, 100 hidden units            | numbers  |
| hoeffding-tree     | Domingos, Hulten 2000                                     | no words |
| arf                | adaptive random forest of 10, Gomes et al. 2017           | no words |
| srp                | streaming random patches of 10, Gomes et al. 2019         | no words |
| leveraging-bagging | 10 Hoeffding trees, Bifet et al. 2010                     | no words |
| softmax            | River's softmax regression on standardised numbers        | no words |
| multinomial-nb     | River's naive Bayes on a bag of words                     | words    |
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from time import perf_counter
from typing import Any

from streamlearn.core.records import Frame
from streamlearn.core.steps import step_cuts
from streamlearn.core.threads import one_thread
from streamlearn.errors import InputError
from streamlearn.evaluation.events import with_pixels
from streamlearn.evaluation.peer_models import LinearPeer, NetworkPeer, Peer, RiverPeer

INSTALL = "pip install 'streamlearn[benchmarks]'"
PACKAGES = {"sklearn": "scikit-learn", "river": "river"}  # a module's package


@dataclass(frozen=True, slots=True)
class PeerResult:
    """One peer over all streams."""

    name: str
    accuracy: float
    events_per_s: float


@dataclass(frozen=True, slots=True)
class Known:
    """A peer that can be asked for."""

    name: str  # as tables show it; its first word is the module
    make: Callable[[int], Peer]  # of a seed
    numbers: bool = True  # it can learn from numbers, few-valued strings
    words: bool = False  # it can learn from words

    @property
    def module(self) -> str:
        return self.name.split()[0]

    def suits(self, frame: Frame) -> bool:
        """Whether there is something for it in a stream that begins with this frame."""
        only_words = bool(frame.texts) and not frame.columns
        return self.words if only_words else self.numbers


def _river(module: str) -> Any:
    return import_module(f"river.{module}")


def _tree() -> Any:
    return _river("tree").HoeffdingTreeClassifier()


def _arf(seed: int) -> Peer:
    return RiverPeer(_river("forest").ARFClassifier(seed=seed))


def _srp(seed: int) -> Peer:
    return RiverPeer(_river("ensemble").SRPClassifier(seed=seed))


def _leveraging_bagging(seed: int) -> Peer:
    bagging = _river("ensemble").LeveragingBaggingClassifier
    return RiverPeer(bagging(_tree(), n_models=10, seed=seed))


def _softmax(_: int) -> Peer:
    compose, preprocessing = _river("compose"), _river("preprocessing")
    numbers = compose.SelectType(float) | preprocessing.StandardScaler()
    strings = compose.SelectType(str) | preprocessing.OneHotEncoder()
    return RiverPeer((numbers + strings) | _river("linear_model").SoftmaxRegression())


def _naive_bayes(_: int) -> Peer:
    bag = _river("feature_extraction").BagOfWords(on="text")
    return RiverPeer(bag | _river("naive_bayes").MultinomialNB(), words=True)


KNOWN: dict[str, Known] = {
    "sgd": Known("sklearn SGDClassifier", LinearPeer, words=True),
    "mlp": Known("sklearn MLPClassifier", NetworkPeer),
    "hoeffding-tree": Known("river HoeffdingTree", lambda _: RiverPeer(_tree())),
    "arf": Known("river ARF", _arf),
    "srp": Known("river SRP", _srp),
    "leveraging-bagging": Known("river LeveragingBagging", _leveraging_bagging),
    "softmax": Known("river SoftmaxRegression", _softmax),
    "multinomial-nb": Known("river MultinomialNB", _naive_bayes, numbers=False, words=True),
}
GROUPS = {"sklearn": ("sgd",), "river": ("hoeffding-tree", "arf", "multinomial-nb")}
PEERS = (*GROUPS, *KNOWN)  # what --compare takes


def check_peers(asked: Sequence[str]) -> None:
    """InputError for one that nobody knows, or that is not installed."""
    for name in asked:
        if name not in PEERS:
            raise InputError(f"--compare knows {', '.join(PEERS)}, not {name!r}; leave it out")
        module = name if name in GROUPS else KNOWN[name].module
        try:
            import_module(module)
        except ImportError as error:
            raise InputError(
                f"--compare {name} needs the package {PACKAGES[module]}: {INSTALL}, or leave it out"
            ) from error


def peers_for(frame: Frame, asked: Sequence[str], seed: int) -> dict[str, Peer]:
    """The peers of a stream that begins with this frame, by the name that tables show."""
    single = dict.fromkeys(one for name in asked for one in GROUPS.get(name, (name,)))
    known = [KNOWN[name] for name in single]
    return {one.name: one.make(seed) for one in known if one.suits(frame)}


class Peers:
    """All peers on all streams, prequentially."""

    def __init__(self, asked: Sequence[str], *, step: int, seed: int) -> None:
        check_peers(asked)
        self._asked, self._step, self._seed = tuple(asked), step, seed
        self._peers: dict[str, dict[str, Peer]] = {}  # by stream, then name
        self._right: dict[str, int] = {}
        self._n: dict[str, int] = {}
        self._events: dict[str, int] = {}
        self._seconds: dict[str, float] = {}

    def test_then_learn(self, frame: Frame) -> dict[str, list[bool]]:
        """Of each peer: whether it named each labelled event of the frame."""
        if not self._asked:
            return {}
        frame = with_pixels(frame)
        first = frame.stream not in self._peers
        if first:
            self._peers[frame.stream] = peers_for(frame, self._asked, self._seed)
        steps = [frame.rows(*cut) for cut in step_cuts(len(frame), self._step, first=first)]
        told: dict[str, list[bool]] = {}
        for name, peer in self._peers[frame.stream].items():
            start = perf_counter()
            with one_thread():
                right = told[name] = _test_then_learn(peer, steps)
            self._seconds[name] = self._seconds.get(name, 0.0) + perf_counter() - start
            self._right[name] = self._right.get(name, 0) + sum(right)
            self._n[name] = self._n.get(name, 0) + len(right)
            self._events[name] = self._events.get(name, 0) + len(frame)
        return told

    def results(self) -> tuple[PeerResult, ...]:
        """The best first."""
        found = [
            PeerResult(
                name, self._right[name] / max(self._n[name], 1),
                self._events[name] / max(self._seconds[name], 1e-9),
            )
            for name in self._right
        ]  # fmt: skip
        return tuple(sorted(found, key=lambda one: -one.accuracy))


def _test_then_learn(peer: Peer, steps: Sequence[Frame]) -> list[bool]:
    """Whether the peer named each labelled event, a step before it learned it."""
    right: list[bool] = []
    for step in steps:
        named = zip(peer.predict(step), step.labels(), strict=True)
        right += [guess == label for guess, label in named if label is not None]
        peer.learn(step)
    return right
