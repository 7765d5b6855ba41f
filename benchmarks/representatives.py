"""Micro-clusters against a uniform reservoir, and suggested labels against random ones.

    python -m benchmarks.representatives MNIST.npz WATCH.npz [--seeds 3]

Both npz hold X and y; WATCH also `subject` and `order`. One pass over 80 % of a shuffled stream in
frames of 256; the rest is the test. What is kept at the end, and nothing else, trains each head:

    means      nearest class mean, rows weighed by their counts
    ridge      ridge on standardised rows and 500 random ReLU features, classes weighed alike
    nearest    nearest kept row

`recall` is the mean of the sample that a held-out slice trusts. Spread is over seeds. Labels: each
person's events after 5, 10, 20 labels among the first 100, the ridge started from everyone else's
statistics (prior) or from nothing.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import process_time

import numpy as np
from numpy.typing import NDArray

from benchmarks.jobs import Job, Row, Scale, Skip
from streamlearn.core.microclusters import MicroClusters
from streamlearn.core.modes import find_modes
from streamlearn.core.recall import choose, held_out, recall
from streamlearn.core.reservoir import Kept, UniformReservoir, stream_key
from streamlearn.core.suggest import suggest
from streamlearn.core.threads import one_thread

FRAME_EVENTS = 256
BUDGETS = (5, 20)
RANDOM_FEATURES = 500
POOL, LABELS, DRAWS = 100, (5, 10, 20), 5
FILES = {"mnist_5k": "mnist_5k/data.npz", "watch_imu": "watch_imu/data.npz"}
ASKED = "watch_imu, labels asked for"
PRIOR_EVENTS = 30.0  # that everyone else's statistics count for

Rows = NDArray[np.float64]
Codes = NDArray[np.int32]
Asked = dict[tuple[str, int, str], list[float]]
Head = Callable[[Kept, Rows, Rows], NDArray[np.int64]]


def means(kept: Kept, test: Rows, scale: Rows) -> NDArray[np.int64]:
    """Nearest class mean."""
    classes = range(int(kept.codes.max()) + 1)
    centres = np.stack(
        [
            np.average(kept.rows[kept.codes == c], axis=0, weights=kept.weights[kept.codes == c])
            for c in classes
        ]
    )
    return nearest_row(centres, test, scale)


def nearest(kept: Kept, test: Rows, scale: Rows) -> NDArray[np.int64]:
    """Class of the nearest kept row."""
    return kept.codes[nearest_row(kept.rows, test, scale)].astype(np.int64)


def nearest_row(rows: Rows, test: Rows, scale: Rows) -> NDArray[np.int64]:
    """(n,) index of the nearest of `rows` (k, d)."""
    a, b = test * scale, rows * scale
    return np.asarray(((b**2).sum(axis=1) - 2 * a @ b.T).argmin(axis=1))


def ridge(kept: Kept, test: Rows, scale: Rows) -> NDArray[np.int64]:
    """Ridge on rows and random features, each class weighing as much as another."""
    rng = np.random.default_rng(0)
    d = test.shape[1]
    into, bias = (
        rng.normal(size=(d, RANDOM_FEATURES)) / np.sqrt(d),
        rng.normal(size=RANDOM_FEATURES),
    )
    centre = test.mean(axis=0)

    def features(rows: Rows) -> Rows:
        z = (rows - centre) * scale
        return np.hstack([np.maximum(z @ into + bias, 0.0), z, np.ones((len(z), 1))])

    p = features(kept.rows)
    weight = kept.weights / np.bincount(kept.codes, kept.weights)[kept.codes]
    weight *= len(weight) / weight.sum()
    targets = np.eye(int(kept.codes.max()) + 1)[kept.codes]
    gram = (p * weight[:, None]).T @ p + np.eye(p.shape[1])
    solved = np.linalg.solve(gram, (p * weight[:, None]).T @ targets)
    return np.asarray((features(test) @ solved).argmax(axis=1))


HEADS: dict[str, Head] = {"means": means, "ridge": ridge, "nearest": nearest}


def compare(
    name: str, x: Rows, y: Codes, scale: Rows, budget: int, seed: int
) -> tuple[dict[str, dict[str, float]], float, float]:
    """Accuracy by what was kept and head; events a CPU-second; modes a class."""
    order = np.random.default_rng(seed).permutation(len(x))
    train, test = np.split(order, [len(x) * 4 // 5])
    clusters = MicroClusters(capacity=budget)
    uniform = UniformReservoir(capacity=budget, key=stream_key(seed, name))
    held = UniformReservoir(capacity=10, key=stream_key(seed, f"{name} held out"))
    spent = 0.0
    for start in range(0, len(train), FRAME_EVENTS):
        event = np.arange(start, min(start + FRAME_EVENTS, len(train)))
        rows, codes, time_s = x[train[event]], y[train[event]], event.astype(np.float64)
        ask = held_out(event, key=seed)
        kept_codes = np.where(ask, -1, codes).astype(np.int32)
        held_codes = np.where(ask, codes, -1).astype(np.int32)
        held.offer(rows, held_codes, event, time_s)
        uniform.offer(rows, kept_codes, event, time_s)
        began = process_time()
        clusters.offer(rows, kept_codes, event, time_s, scale)
        spent += process_time() - began
    samples = {
        "micro-clusters": clusters.kept(),
        "their members": clusters.members(),
        "uniform": uniform.kept(),
    }
    both = ("micro-clusters", "uniform")
    recalls = {k: recall(samples[k], held.kept(), scale) for k in both}
    samples["recall"] = samples[choose(recalls, trusted="uniform")]
    found = {
        how: {
            head: float((predict(kept, x[test], scale) == y[test]).mean())
            for head, predict in HEADS.items()
        }
        for how, kept in samples.items()
    }
    modes = find_modes(clusters.kept(), clusters.variances(), scale).n_modes.mean()
    return found, len(train) / spent, float(modes)


def table(name: str, x: Rows, y: Codes, scale: Rows, seeds: int) -> None:
    """Print kept how against heads, a table a budget."""
    for budget in BUDGETS:
        found = [compare(name, x, y, scale, budget, seed) for seed in range(seeds)]
        rate, modes = max(one[1] for one in found), np.mean([one[2] for one in found])
        print(f"\n{name}, {budget} a class: {rate:,.0f} events/s, {modes:.1f} modes")
        print("| kept | " + " | ".join(HEADS) + " |\n|---|" + "---|" * len(HEADS))
        for how in ("uniform", "their members", "micro-clusters", "recall"):
            each = [[one[0][how][head] for one in found] for head in HEADS]
            cells = [f"{np.mean(values):.3f} +- {np.std(values):.3f}" for values in each]
            print(f"| {how} | " + " | ".join(cells) + " |")


def ask(x: Rows, y: Codes, person: NDArray[np.int64], seeds: Sequence[int]) -> Asked:
    """Accuracies after a few labels, suggested against random, by start, labels and how."""
    found: Asked = defaultdict(list)
    for seed in seeds:
        rng = np.random.default_rng(seed)
        into = rng.normal(size=(x.shape[1], 200)) / np.sqrt(x.shape[1])
        bias = rng.normal(size=200)
        for one in np.unique(person):
            others = person != one
            z = np.clip((x - x[others].mean(axis=0)) / x[others].std(axis=0), -5, 5)
            p = np.hstack([np.maximum(z @ into + bias, 0), z, np.ones((len(z), 1))])
            own = rng.permutation(np.flatnonzero(~others))
            gram = p[others].T @ p[others] / others.sum()
            cross = p[others].T @ np.eye(7)[y[others]] / others.sum()
            first = np.linalg.solve(300 * gram + np.eye(len(gram)), 300 * cross)
            for start, tau in (("prior", PRIOR_EVENTS), ("nothing", 0.0)):
                one_person(
                    found, start, z, p, y, own, tau * gram + np.eye(len(gram)), tau > 0, first, rng
                )
    return found


def print_asked(found: Asked) -> None:
    """As a table."""
    print("\nwatch, a new person, accuracy after n labels")
    print("| from | n | random | suggested |\n|---|---|---|---|")
    for start in ("prior", "nothing"):
        for n in LABELS:
            chance, chosen = (np.mean(found[start, n, how]) for how in ("random", "suggested"))
            print(f"| {start} | {n} | {chance:.3f} | {chosen:.3f} ({chosen - chance:+.3f}) |")


def one_person(
    found: Asked,
    start: str,
    z: Rows,
    p: Rows,
    y: Codes,
    own: NDArray[np.int64],
    gram: Rows,
    prior: bool,
    first: Rows,
    rng: np.random.Generator,
) -> None:
    """One person's pool of events, asked by chance and as suggested."""
    pool, test = own[:POOL], own[POOL:]
    cross = gram @ first if prior else np.zeros_like(first)

    def accuracy(chosen: NDArray[np.int64]) -> float:
        rows = p[chosen]
        head = np.linalg.solve(gram + rows.T @ rows, cross + rows.T @ np.eye(7)[y[chosen]])
        return float(((p[test] @ head).argmax(axis=1) == y[test]).mean())

    scores = np.clip(p[pool] @ first, 0.01, None)
    said = (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32) if prior else None
    for n in LABELS:
        chance = [accuracy(rng.choice(pool, n, replace=False)) for _ in range(DRAWS)]
        found[start, n, "random"].append(float(np.mean(chance)))
        chosen = suggest(z[pool], n, probabilities=said)
        found[start, n, "suggested"].append(accuracy(pool[chosen]))


def read(folder: Path, name: str) -> tuple[Rows, Codes, Rows, NDArray[np.int64]]:
    """Rows, classes, scale, and whose they are."""
    return prepare(np.load(folder / FILES[name]))


def prepare(data: Mapping[str, NDArray[np.generic]]) -> tuple[Rows, Codes, Rows, NDArray[np.int64]]:
    """The same, of an npz: images 0..1, or numbers with `order` and `subject`."""
    x = np.asarray(data["X"], np.float64).reshape(len(data["X"]), -1)
    y = np.asarray(data["y"], np.int32)
    if "order" not in data:
        return x / 255.0, y, np.ones(x.shape[1]), np.zeros(len(y), np.int64)
    order = np.asarray(data["order"], np.intp)
    people = np.asarray(data["subject"], np.int64)[order]
    return x[order], y[order], 1 / x.std(axis=0), people


def jobs(scale: Scale, data: Path | None) -> tuple[list[Job], list[Skip]]:
    """Kept how, of both streams and budgets, and labels asked for: for `benchmarks.learning`."""
    made: list[Job] = []
    skipped: list[Skip] = []
    seeds = tuple(range(scale.seeds))
    for name, file in FILES.items():
        if data is None or not (data / file).exists():
            skipped.append(Skip("representatives", f"shared data {file} is not here: --data DIR"))
            continue
        settings = [f"{name}, {budget} a class" for budget in BUDGETS]
        settings += [ASKED] if name == "watch_imu" else []
        made += [Job("representatives", one, "all", seeds, scale, data) for one in settings]
    return made, skipped


def run(job: Job) -> list[Row]:
    """A row a seed: figures are called by how and head, or start and labels."""
    name = job.setting.split(",")[0]
    x, y, scale, person = read(job.data or Path(), name)
    rows: list[Row] = []
    for seed in job.seeds:
        began = process_time()
        figures: dict[str, float | None] = {}
        with one_thread():
            if job.setting == ASKED:
                found = ask(x, y, person, [seed])
                figures = {
                    f"{start}, {n} labels: {how}": float(np.mean(values))
                    for (start, n, how), values in found.items()
                }
            else:
                budget = int(job.setting.split(", ")[1].split()[0])
                kept, rate, modes = compare(name, x, y, scale, budget, seed)
                figures = {f"{how}: {head}": v for how in kept for head, v in kept[how].items()}
                figures |= {"events/s": rate, "modes": modes}
        spent = process_time() - began
        rows.append(
            Row(job.part, job.setting, job.who, seed, job.scale.name, figures, len(y), spent)
        )
    return rows


def main() -> None:
    """Read the flags and the data, print all tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("mnist", type=Path)
    parser.add_argument("watch", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    flags = parser.parse_args()
    x, y, scale, _ = prepare(np.load(flags.mnist))
    w, labels, w_scale, person = prepare(np.load(flags.watch))
    with one_thread():
        table("mnist", x, y, scale, flags.seeds)
        table("watch", w, labels, w_scale, flags.seeds)
        print_asked(ask(w, labels, person, range(flags.seeds)))


if __name__ == "__main__":
    main()
