"""What the adapted network forgets: methods side by side, one run, several seeds, mean +- spread.

    python benchmarks/forgetting.py DATA.npz [--scenario classes rotated permuted]
        [--network mlp conv] [--seeds 3] [--only PART_OF_A_NAME]

DATA.npz holds X (n, 28, 28) uint8 and y (n,), ten classes, as mnist. One pass over 80 % of it in
micro-batches of 32; the rest is the test. Every method replays from the same reservoir, uniform
and class-balanced, 20 rows a class. Five tasks follow each other and no method is told when:
two new classes each (classes), all classes turned by 36 degrees more (rotated), all classes under
another permutation of the pixels (permuted). Reported:

    final      accuracy over all tasks at the end, all classes competing
    forgetting a task's accuracy when it ended minus its final one, mean over all tasks but the last
    online     accuracy on each micro-batch before it is learned
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import rotate
from torch import Tensor

from streamlearn.core.adapt import Batch, InnerLoop, Pull, with_prior
from streamlearn.core.adapt_settings import AdaptSettings, learning_rate
from streamlearn.core.compensate import (
    Anchor,
    CompensateSettings,
    cross_boundary,
    first_anchor,
    fisher,
    follow,
)
from streamlearn.core.encoder import slow_tensors, stack
from streamlearn.core.network_spec import NetworkSpec, new_weights, slow_weights

EVENTS = 32
PER_CLASS = 20
TASKS = 5
DROP = 0.3  # a boundary: accuracy this much below the usual, or a new class
NETWORKS = {
    "mlp": NetworkSpec(inputs=784, hidden=(512,), rank=8),
    "conv": NetworkSpec(inputs=784, hidden=(16, 32), rank=4, kind="conv"),
}
OFF = CompensateSettings(average=0.0)


@dataclass(frozen=True, kw_only=True)
class Method:
    """One line of the table."""

    name: str
    adapt: AdaptSettings
    compensate: CompensateSettings = OFF
    replay: bool = True
    follow_rate: bool = False
    teacher: bool = False  # replayed events are held to what the average says, not to stored logits


def methods(rate: float) -> list[Method]:
    """All at the same rate, steps and buffer."""
    er = AdaptSettings(loss="er", prior=0.0, rate=rate)
    ace = AdaptSettings(loss="er-ace", prior=0.0, rate=rate)
    der = AdaptSettings(loss="der++", prior=0.0, rate=rate)
    strong = AdaptSettings(loss="der++", prior=0.0, alpha=0.3, rate=rate)
    ours = AdaptSettings(rate=rate)
    pulled = AdaptSettings(rate=rate, proximal=10.0)
    average = CompensateSettings()
    merge = CompensateSettings(merge=0.3, average=0.0)
    both = CompensateSettings(merge=0.5)
    align = CompensateSettings(align=True, average=0.0)
    return [
        Method(name="SGD, no replay", adapt=er, replay=False),
        Method(name="ER", adapt=er),
        Method(name="ER-ACE", adapt=ace),
        Method(name="DER++ (alpha .1)", adapt=der),
        Method(name="DER++ (alpha .3)", adapt=strong),
        Method(name="DER++, anchor merge", adapt=der, compensate=merge),
        Method(name="DER++, average", adapt=der, compensate=average),
        Method(name="DER++, head aligned", adapt=der, compensate=align),
        Method(name="ER, prior", adapt=AdaptSettings(loss="er", rate=rate)),
        Method(name="DER++, prior", adapt=ours),
        Method(name="DER++, prior, anchor merge", adapt=ours, compensate=merge),
        Method(name="DER++, prior, proximal", adapt=pulled),
        Method(name="DER++, prior, rate follows", adapt=ours, follow_rate=True),
        Method(name="DER++, prior, average (default)", adapt=ours, compensate=average),
        Method(name="average as teacher", adapt=ours, compensate=average, teacher=True),
        Method(name="DER++, prior, average, merge", adapt=ours, compensate=both),
    ]


@dataclass(frozen=True, eq=False)
class Stream:
    """Events of one seed in order, and a test set a task."""

    x: NDArray[np.float32]  # (n, 784)
    y: NDArray[np.int64]  # (n,) in order of appearance
    task: NDArray[np.int64]  # (n,)
    tests: list[tuple[Tensor, NDArray[np.int64]]]  # a task's (1, m, 784) and (m,)


def read_streams(path: Path, scenario: str, seeds: int) -> list[Stream]:
    """One stream a seed."""
    with np.load(path) as data:
        images, labels = data["X"], data["y"].astype(np.int64)
    return [make_stream(images, labels, scenario, seed) for seed in range(seeds)]


def make_stream(
    images: NDArray[np.uint8], labels: NDArray[np.int64], scenario: str, seed: int
) -> Stream:
    """Shuffle, split, order by task and transform."""
    rng = np.random.default_rng(seed)
    picked = rng.permutation(len(labels))
    test, train = np.split(picked, [len(labels) // 5])
    x = ((images.reshape(len(images), -1) / 255.0 - 0.13) / 0.31).astype(np.float32)
    y = rng.permutation(10)[labels]  # which digits come first differs by seed
    if scenario == "classes":
        views = [x] * TASKS
        parts = [train[y[train] // 2 == task] for task in range(TASKS)]
        asked = [test[y[test] // 2 == task] for task in range(TASKS)]
    else:
        views = [look(x, scenario, task, rng) for task in range(TASKS)]
        parts = np.array_split(train, TASKS)
        asked = [test] * TASKS
    return Stream(
        np.concatenate([view[part] for view, part in zip(views, parts, strict=True)]),
        y[np.concatenate(parts)],
        np.repeat(np.arange(TASKS), [len(part) for part in parts]),
        [
            (torch.from_numpy(view[rows]).unsqueeze(0), y[rows])
            for view, rows in zip(views, asked, strict=True)
        ],
    )


def look(
    x: NDArray[np.float32], scenario: str, task: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """The same images as a task shows them."""
    if scenario == "permuted":
        return x[:, rng.permutation(x.shape[1])] if task else x
    side = x.reshape(-1, 28, 28)
    turned = rotate(side, 36.0 * task, axes=(1, 2), reshape=False, order=1, mode="nearest")
    return np.ascontiguousarray(turned.reshape(len(x), -1), dtype=np.float32)


class Buffer:
    """Uniform class-balanced reservoir of events and their logits."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.rows: dict[int, list[tuple[NDArray[np.float32], NDArray[np.float32]]]] = {}
        self.seen: dict[int, int] = {}

    def offer(self, x: NDArray[np.float32], y: NDArray[np.int64], z: NDArray[np.float32]) -> None:
        for event, label, logits in zip(x, y.tolist(), z, strict=True):
            rows = self.rows.setdefault(label, [])
            self.seen[label] = self.seen.get(label, 0) + 1
            if len(rows) < PER_CLASS:
                rows.append((event, logits))
            elif (slot := int(self.rng.integers(self.seen[label]))) < PER_CLASS:
                rows[slot] = (event, logits)  # Vitter 1985, Algorithm R, a class at a time

    def draw(self, batch: Batch, slot: int) -> None:
        """Fill every draw of a slot, without replacement where there are rows enough."""
        rows = [(x, label, z) for label, kept in self.rows.items() for x, z in kept]
        draws, _, count = batch.replay_y.shape
        for draw in range(draws if rows else 0):
            picked = self.rng.choice(len(rows), count, replace=len(rows) < count)
            x, y, z = zip(*(rows[row] for row in picked), strict=True)
            batch.replay_x[draw, slot] = torch.from_numpy(np.stack(x))
            batch.replay_y[draw, slot] = torch.tensor(y)
            batch.replay_logits[draw, slot] = torch.from_numpy(np.stack(z))
            batch.replay_mask[draw, slot] = True


class Run:
    """One method on all seeds at once: a seed is a slot of the inner loop."""

    def __init__(self, method: Method, spec: NetworkSpec, streams: list[Stream]) -> None:
        self.method, self.spec, self.streams = method, spec, streams
        slow = slow_weights(spec)
        self.slow = slow_tensors(slow, torch.device("cpu"))
        slots = len(streams)
        self.loop = InnerLoop(spec, method.adapt, slow, slots=slots, events=EVENTS)
        self.phi = stack(spec, [new_weights(spec, slot) for slot in range(slots)])
        self.anchor: Anchor = first_anchor(spec, self.phi)
        self.known = torch.zeros(slots, spec.classes, dtype=torch.bool)
        self.frequency = torch.zeros(slots, spec.classes)
        self.buffers = [Buffer(slot) for slot in range(slots)]
        self.usual = np.full(slots, 0.5)  # recent accuracy
        self.age = np.zeros(slots)  # events since the last boundary
        self.hits = np.zeros(slots)

    def result(self) -> NDArray[np.float64]:
        """(seeds, 3): final accuracy, forgetting, online accuracy."""
        n = min(len(stream.y) for stream in self.streams)
        ended = np.zeros((len(self.streams), TASKS))
        for start in range(0, n, EVENTS):
            stop = min(start + EVENTS, n)
            self.learn(start, stop)
            for slot, stream in enumerate(self.streams):
                task = stream.task[start]
                if stop == n or stream.task[stop] != task:
                    ended[slot, task] = self.accuracy(slot, task)
        final = np.array(
            [[self.accuracy(s, task) for task in range(TASKS)] for s in range(len(ended))]
        )
        forgot = (ended - final)[:, :-1].mean(axis=1)
        return np.stack([final.mean(axis=1), forgot, self.hits / n], axis=1)

    def learn(self, start: int, stop: int) -> None:
        """1 test; 2 boundary; 3 replay and steps; 4 anchor; 5 reservoir."""
        batch = self.loop.empty()
        for slot, stream in enumerate(self.streams):
            batch.x[slot, : stop - start] = torch.from_numpy(stream.x[start:stop])
            batch.y[slot, : stop - start] = torch.from_numpy(stream.y[start:stop])
        batch.mask[:, : stop - start] = True
        before = self.known.clone()
        boundary = self.test(batch, stop - start)
        batch.known.copy_(self.known)
        for slot, buffer in enumerate(self.buffers):
            if self.method.replay:
                buffer.draw(batch, slot)
        if self.method.teacher:
            self.ask_average(batch)
        if start and boundary.any():
            self.cross(batch, boundary, before)
        pull = None
        if self.method.adapt.proximal:
            pull = Pull(self.anchor.phi, self.anchor.importance)
        self.phi = self.loop.adapt(self.phi, self.rates(batch), pull).phi
        keep = self.method.compensate.average
        if keep:
            self.anchor = follow(self.spec, self.anchor, self.phi, self.known, keep)
        z = self.loop.logits(self.phi, batch.x)
        z = z.masked_fill(~self.known.unsqueeze(1), torch.nan)
        for slot, (buffer, stream) in enumerate(zip(self.buffers, self.streams, strict=True)):
            rows = slice(start, stop)
            buffer.offer(stream.x[rows], stream.y[rows], z[slot, : stop - start].numpy())

    def test(self, batch: Batch, n: int) -> NDArray[np.bool_]:
        """Predict as a stream is served, score, take note of classes; (seeds,) at a boundary."""
        z = self.loop.logits(self.phi, batch.x)
        z = with_prior(z, self.frequency.unsqueeze(1), self.method.adapt.prior)
        z = z.masked_fill(~self.known.unsqueeze(1), -1e9)
        right = (z.argmax(dim=2) == batch.y) & batch.mask & self.known.any(dim=1, keepdim=True)
        hits = right.sum(dim=1).numpy()
        self.hits += hits
        hot = torch.nn.functional.one_hot(batch.y, self.spec.classes) * batch.mask.unsqueeze(2)
        counts = hot.sum(dim=1)
        new = ((counts > 0) & ~self.known).any(dim=1).numpy()
        self.known |= counts > 0
        self.frequency = 0.5 * self.frequency + 0.5 * counts / n
        boundary: NDArray[np.bool_] = new | (hits / n < self.usual - DROP)
        self.usual = np.where(boundary, 0.5, 0.9 * self.usual + 0.1 * hits / n)
        self.age = np.where(boundary, 0.0, self.age + n)
        return boundary

    def ask_average(self, batch: Batch) -> None:
        """The replayed events' logits, by the average's weights, of classes that it has learned."""
        learned = self.anchor.known.unsqueeze(1)
        for x, stored in zip(batch.replay_x, batch.replay_logits, strict=True):
            said = self.loop.logits(self.anchor.phi, x)
            stored.copy_(torch.where(learned, said, torch.nan))

    def cross(self, batch: Batch, boundary: NDArray[np.bool_], before: Tensor) -> None:
        """What the method does at a boundary."""
        importance = None
        if self.method.adapt.proximal:
            importance = fisher(
                self.spec,
                self.slow,
                self.phi,
                x=batch.replay_x[0],
                y=batch.replay_y[0],
                mask=batch.replay_mask[0],
                known=before,
            )
        self.phi, self.anchor = cross_boundary(
            self.spec,
            self.method.compensate,
            self.phi,
            self.anchor,
            at=torch.from_numpy(boundary),
            known=before,
            importance=importance,
        )

    def rates(self, batch: Batch) -> Batch:
        """The batch with each stream's learning rate."""
        settings = self.method.adapt
        for slot, age in enumerate(self.age):
            rate = learning_rate(settings, age_events=float(age), drift=0.0)
            batch.rate[slot] = rate if self.method.follow_rate else settings.rate
        return batch

    def accuracy(self, slot: int, task: int) -> float:
        """On a task's test set, all classes seen competing, as an event of any time is served."""
        x, y = self.streams[slot].tests[task]
        weights = self.anchor.phi if self.method.compensate.average else self.phi
        z = self.loop.logits(weights[slot : slot + 1], x)[0]
        z = z.masked_fill(~self.known[slot], -1e9)
        return float((z.argmax(dim=1).numpy() == y).mean())


def table(scenario: str, network: str, chosen: Sequence[Method], streams: list[Stream]) -> None:
    """Print a line a method."""
    print(f"\n{scenario}, {network}, {len(streams)} seeds, {PER_CLASS} rows a class")
    print(f"{'':34s}{'final':>16s}{'forgetting':>18s}{'online':>16s}{'CPU s':>7s}")
    for method in chosen:
        start = time.process_time()
        run = Run(method, NETWORKS[network], streams)
        result = run.result()
        spent = time.process_time() - start
        mean, spread = result.mean(axis=0), result.std(axis=0)
        cells = [f"{m:.3f} +- {s:.3f}" for m, s in zip(mean, spread, strict=True)]
        rolled = f"  {run.loop.diverged} rolled back" if run.loop.diverged else ""
        print(
            f"{method.name:34s}{cells[0]:>16s}{cells[1]:>18s}{cells[2]:>16s}{spent:7.0f}{rolled}",
            flush=True,
        )


def main() -> None:
    """Print all tables asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    scenarios = ["classes", "rotated", "permuted"]
    parser.add_argument("--scenario", nargs="+", choices=scenarios, default=scenarios)
    parser.add_argument("--network", nargs="+", choices=list(NETWORKS), default=["mlp"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=AdaptSettings().rate)
    parser.add_argument("--only", nargs="+", default=[""], help="parts of methods' names")
    options = parser.parse_args()
    torch.set_num_threads(1)
    chosen = [m for m in methods(options.rate) if any(part in m.name for part in options.only)]
    for scenario in options.scenario:
        streams = read_streams(options.data, scenario, options.seeds)
        for network in options.network:
            table(scenario, network, chosen, streams)


if __name__ == "__main__":
    main()
