"""Part 2, class-incremental: two new classes at a time, one pass; what is known at the end?

mnist_5k, as `benchmarks.forgetting` cuts it: 80 % is the stream, ordered by class (which digits
come first differs by seed), the rest is asked for. Three kinds of learners on the same events:

- the whole learner (both read-outs), steps of 32, as a worker runs it
- the adapted network alone, with methods against forgetting, on the same buffer (forgetting.py);
  also on turned and on permuted images
- on fixed features (pixels, or the learner's view a without its scale): class means (NCM), and
  streaming linear discriminant analysis (Hayes, Kanan 2020, Deep SLDA, arXiv:1909.01520)
"""

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import forgetting
from benchmarks.jobs import Job, Row, Scale, Skip, cpu_of
from streamlearn.core.features import draw_slow, slow_size
from streamlearn.core.learner import StreamLearner
from streamlearn.core.records import Frame, ImageColumn
from streamlearn.core.settings import LearnerSettings

FILE = "mnist_5k/data.npz"
PIXELS, IMAGES = "streamlearn, pixels as columns", "streamlearn, images"
SHRINKAGE = 1e-2  # of the shared covariance towards the identity; Deep SLDA has 1e-4 on 512 numbers
NETWORK = "network alone: "
SCENARIOS = ("classes", "rotated", "permuted")
METHODS = (  # of forgetting.py, the ones that are compared by default
    "SGD, no replay", "ER", "ER-ACE", "DER++ (alpha .1)", "DER++ (alpha .3)",
    "DER++, prior, average (default)",
)  # fmt: skip
FIXED = {
    "NCM, pixels": ("ncm", False),
    "NCM, random features": ("ncm", True),
    "SLDA, pixels": ("slda", False),
    "SLDA, random features": ("slda", True),
}


def jobs(scale: Scale, data: Path | None) -> tuple[list[Job], list[Skip]]:
    """All learners on all scenarios."""
    if data is None or not (data / FILE).exists():
        return [], [Skip("class-incremental", f"shared data {FILE} is not here: --data DIR")]
    seeds = tuple(range(scale.seeds))
    methods = [one.name for one in forgetting.methods(forgetting.AdaptSettings().rate)]
    if not scale.slow:
        methods = [name for name in methods if name in METHODS]
    made = [
        Job("class_incremental", scenario, NETWORK + name, seeds, scale, data)
        for scenario in (SCENARIOS if scale.wide else SCENARIOS[:1])
        for name in methods
    ]
    made += [
        Job("class_incremental", "classes", who, seeds, scale, data) for who in (IMAGES, PIXELS)
    ]
    made += [Job("class_incremental", "classes", who, seeds, scale, data) for who in FIXED]
    return made, []


def run(job: Job) -> list[Row]:
    """A row a seed."""
    streams = forgetting.read_streams((job.data or Path()) / FILE, job.setting, max(job.seeds) + 1)
    if job.who.startswith(NETWORK):
        return _network(job, streams)
    rows = []
    for seed in job.seeds:
        one = streams[seed]
        if job.who in FIXED:
            spent, figures = cpu_of(partial(_fixed, job.who, one, seed))
        else:
            spent, figures = cpu_of(partial(_learner, one, seed, job.who == IMAGES))
        rows.append(_row(job, seed, figures, len(one.y), spent))
    return rows


def _row(job: Job, seed: int, figures: dict[str, float | None], n: int, spent: float) -> Row:
    return Row(job.part, job.setting, job.who, seed, job.scale.name, figures, n, spent)


def _network(job: Job, streams: list[forgetting.Stream]) -> list[Row]:
    wanted = job.who.removeprefix(NETWORK)
    (method,) = [m for m in forgetting.methods(forgetting.AdaptSettings().rate) if m.name == wanted]
    one = forgetting.Run(method, forgetting.NETWORKS["mlp"], streams)
    spent, result = cpu_of(one.result)
    names = ("final", "forgetting", "online")
    return [
        _row(
            job, seed, dict(zip(names, result[seed].tolist(), strict=True)),
            len(streams[seed].y), spent / len(streams),
        )
        for seed in job.seeds
    ]  # fmt: skip


def _frame(pixels: NDArray[np.uint8], codes: NDArray[np.integer], *, images: bool) -> Frame:
    """Images of classes, as images or as a column a pixel."""
    n = len(codes)
    flat = pixels.reshape(n, -1).astype(np.float64)
    names, labels = np.unique(codes, return_inverse=True)
    return Frame(
        stream="digits",
        columns=() if images else tuple(f"p{at}" for at in range(flat.shape[1])),
        numbers=np.zeros((n, 0)) if images else flat,
        label_codes=labels.astype(np.int32),
        label_values=tuple(f"c{name}" for name in names.tolist()),
        event_time_s=np.arange(float(n)),
        images={"image": ImageColumn.of(pixels)} if images else {},
    )


def _pixels(x: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(n, 28, 28) as they were before forgetting.py standardised them."""
    return np.rint((x * 0.31 + 0.13) * 255.0).clip(0, 255).astype(np.uint8).reshape(-1, 28, 28)


def _learner(stream: forgetting.Stream, seed: int, images: bool) -> dict[str, float | None]:
    learner = StreamLearner("digits", LearnerSettings(seed=seed, step_events=forgetting.EVENTS))
    tests = [(_frame(_pixels(x[0].numpy()), y, images=images), y) for x, y in stream.tests]
    last = len(tests) - 1
    ended = np.zeros((2, last + 1))
    final = np.zeros((2, last + 1))
    hits = np.zeros(2)
    for task in range(last + 1):
        at = np.flatnonzero(stream.task == task)
        codes = stream.y[at]
        frame = _frame(_pixels(stream.x[at]), codes, images=images)
        outcome = learner.learn(frame, keep=True)
        names = np.array([*outcome.classes, ""], object)
        truth = np.array([f"c{code}" for code in codes.tolist()], object)
        hits[0] += (names[outcome.predicted] == truth).sum()
        hits[1] += (names[np.asarray(outcome.predicted_keep)] == truth).sum()
        for asked in range(last + 1) if task == last else [task]:
            for k, readout in enumerate(("serve", "keep")):
                right = _right(learner, *tests[asked], readout)
                (final if task == last else ended)[k, asked] = right
                if asked == task:
                    ended[k, task] = right
    forgot = (ended - final)[:, :-1].mean(axis=1)
    figures: dict[str, float | None] = {}
    for k, readout in enumerate(("serve", "keep")):
        figures[f"{readout} final"] = float(final[k].mean())
        figures[f"{readout} forgetting"] = float(forgot[k])
        figures[f"{readout} online"] = float(hits[k] / len(stream.y))
    return figures


def _right(learner: StreamLearner, frame: Frame, y: NDArray[np.int64], readout: str) -> float:
    model = learner.model()
    given = model.predict_proba(frame, readout="keep" if readout == "keep" else "serve")
    named = np.array(model.classes, object)[given.argmax(axis=1)]
    return float((named == np.array([f"c{code}" for code in y.tolist()], object)).mean())


class MeansOrDiscriminant:
    """Class means, and with `shared` one covariance for all classes: NCM and SLDA."""

    def __init__(self, width: int, *, shared: bool) -> None:
        self.means: dict[int, NDArray[np.float64]] = {}
        self.counts: dict[int, int] = {}
        self.scatter = np.zeros((width, width)) if shared else None
        self.n = 0

    def learn(self, x: NDArray[np.float64], y: NDArray[np.int64]) -> None:
        """Event by event, as Hayes, Kanan 2020, equations 1 and 2; the scatter a step at a time."""
        deltas = np.empty_like(x)
        weights = np.empty(len(y))
        for i, label in enumerate(y.tolist()):
            count = self.counts.get(label, 0)
            mean = self.means.setdefault(label, np.zeros(x.shape[1]))
            deltas[i] = x[i] - mean
            weights[i] = count / (count + 1)
            self.means[label] = mean + deltas[i] / (count + 1)
            self.counts[label] = count + 1
        if self.scatter is not None:
            self.scatter += (deltas * weights[:, None]).T @ deltas
        self.n += len(y)

    def predict(self, x: NDArray[np.float64]) -> NDArray[np.int64]:
        """(n,) classes."""
        if not self.means:
            return np.full(len(x), -1)
        classes = np.array(list(self.means))
        means = np.stack(list(self.means.values()))
        if self.scatter is None:
            return classes[(2 * x @ means.T - (means**2).sum(axis=1)).argmax(axis=1)]
        width = len(self.scatter)
        covariance = (1 - SHRINKAGE) * self.scatter / max(self.n, 1) + SHRINKAGE * np.eye(width)
        weights = np.linalg.solve(covariance, means.T)
        return classes[(x @ weights - 0.5 * (means.T * weights).sum(axis=0)).argmax(axis=1)]


def _fixed(who: str, stream: forgetting.Stream, seed: int) -> dict[str, float | None]:
    kind, random = FIXED[who]
    slow = draw_slow(seed, 200, 3, slow_size(784)).tensors

    def features(x: NDArray[np.float32]) -> NDArray[np.float64]:
        z = x.astype(np.float64)
        if not random:
            return z
        hidden = z @ slow["a/weights"][:784] / np.sqrt(784) + slow["a/bias"]
        return np.hstack([np.maximum(hidden, 0.0), z])

    head = MeansOrDiscriminant(984 if random else 784, shared=kind == "slda")
    tests = [(features(x[0].numpy()), y) for x, y in stream.tests]
    ended = np.zeros(len(tests))
    hits = 0
    for task, (asked, truth) in enumerate(tests):
        at = np.flatnonzero(stream.task == task)
        for rows in np.split(at, range(forgetting.EVENTS, len(at), forgetting.EVENTS)):
            x, y = features(stream.x[rows]), stream.y[rows]
            hits += int((head.predict(x) == y).sum())
            head.learn(x, y)
        ended[task] = (head.predict(asked) == truth).mean()
    final = np.array([(head.predict(x) == y).mean() for x, y in tests])
    return {
        "final": float(final.mean()),
        "forgetting": float((ended - final)[:-1].mean()),
        "online": hits / len(stream.y),
    }
