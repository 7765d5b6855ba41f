"""Members of micro-clusters over encodings against a uniform sample: images, and texts.

    python -m benchmarks.encodings DATA [--seeds 3]

DATA holds mnist_5k/data.npz and huffpost_10k/data.csv.gz. One pass over 80 % of a shuffled stream;
what is kept is chosen by `core.encodings`, and judged on the rest by what it did not see: the
encoder's whole block, and the pixels; or tf-idf of all grams. `nearest`: the nearest kept event has
the right class, `means`: the nearest of the classes' means, members weighed by their counts.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, diags_array

from benchmarks.text import read
from streamlearn.core.encodings import Encodings
from streamlearn.core.features import draw_slow, slow_size
from streamlearn.core.microclusters import MicroClusters
from streamlearn.core.records import ImageColumn
from streamlearn.core.reservoir import Kept, UniformReservoir, stream_key
from streamlearn.core.text import hashed_grams
from streamlearn.core.threads import one_thread
from streamlearn.core.vision import Vision

BUDGETS = (5, 20)
Rows = NDArray[np.float64] | csr_array


def images(path: Path) -> tuple[NDArray[np.float64], dict[str, Rows], NDArray[np.int32]]:
    """Encodings, what to judge by, classes."""
    with np.load(path, allow_pickle=False) as data:
        pixels, codes = data["X"].reshape(-1, 28, 28), data["y"].astype(np.int32)
    slow = draw_slow(0, 200, 3, slow_size(0), images=True)
    seen = Vision(slow.tensors).see([ImageColumn.of(pixels)], len(codes))
    encoded = Encodings(n_images=1).of(len(codes), seen, slow, None, 0)
    flat = pixels.reshape(len(codes), -1) / 255.0
    return encoded, {"features": seen.astype(np.float64), "pixels": flat}, codes


def texts(path: Path) -> tuple[NDArray[np.float64], dict[str, Rows], NDArray[np.int32]]:
    """The same; tf-idf with all events' idf."""
    columns, codes = read(path, "label")
    grams, n = hashed_grams(columns), len(codes)
    slow = draw_slow(0, 200, 3, slow_size(0))
    encoded = Encodings(texts=True).of(n, None, slow, grams, 0)
    frequency = np.bincount(grams.indices, minlength=grams.shape[1])
    weighed = csr_array((1 + np.log(grams.data), grams.indices, grams.indptr), shape=grams.shape)
    weighed = weighed @ diags_array(1 + np.log((1 + n) / (1 + frequency)))
    length = np.sqrt(np.asarray((weighed * weighed).sum(axis=1)).ravel())
    return encoded, {"tf-idf": csr_array(diags_array(1 / length) @ weighed)}, codes.astype(np.int32)


def nearest(rows: Rows, asked: Rows) -> NDArray[np.intp]:
    """(n,) which of `rows` (k, d) lies nearest to each of `asked` (n, d)."""
    products = asked @ rows.T
    products = products if isinstance(products, np.ndarray) else products.toarray()
    squares = np.asarray((rows * rows).sum(axis=1)).ravel()
    return np.asarray((squares - 2 * products).argmin(axis=1))


def judged(kept: Kept, train: Rows, asked: Rows, truth: NDArray[np.int32]) -> tuple[float, float]:
    """Share of right answers by the nearest kept event, and by classes' means."""
    rows = train[kept.event]
    by_row = kept.codes[nearest(rows, asked)]
    classes = np.unique(kept.codes)
    share = kept.weights / np.bincount(kept.codes, kept.weights)[kept.codes]
    means = csr_array((classes[:, None] == kept.codes) * share) @ rows
    by_mean = classes[nearest(means, asked)]
    return float((by_row == truth).mean()), float((by_mean == truth).mean())


def compare(
    encoded: NDArray[np.float64],
    judges: dict[str, Rows],
    codes: NDArray[np.int32],
    budget: int,
    seed: int,
) -> dict[str, list[float]]:
    """By sample: nearest and means, judge after judge."""
    train, test = np.split(
        np.random.default_rng(seed).permutation(len(codes)), [len(codes) * 4 // 5]
    )
    events, times = np.arange(len(train)), np.arange(float(len(train)))
    clusters = MicroClusters(capacity=budget)
    clusters.offer(encoded[train], codes[train], events, times)
    uniform = UniformReservoir(capacity=budget, key=stream_key(seed, "encodings"))
    uniform.offer(encoded[train], codes[train], events, times)
    return {
        name: [
            figure
            for rows in judges.values()
            for figure in judged(kept, rows[train], rows[test], codes[test])
        ]
        for name, kept in (("uniform", uniform.kept()), ("members", clusters.members()))
    }


def main() -> None:
    """Print a table of each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    flags = parser.parse_args()
    streams = {
        "mnist_5k": (images, "mnist_5k/data.npz"),
        "huffpost_10k": (texts, "huffpost_10k/data.csv.gz"),
    }
    for name, (load, file) in streams.items():
        encoded, judges, codes = load(flags.data / file)
        heads = [f"{judge}, {head}" for judge in judges for head in ("nearest", "means")]
        print(f"\n| {name} | kept | {' | '.join(heads)} |\n|{'---|' * (2 + len(heads))}")
        for budget in BUDGETS:
            with one_thread():
                found = [compare(encoded, judges, codes, budget, s) for s in range(flags.seeds)]
            for how in found[0]:
                each = np.array([one[how] for one in found])
                cells = [
                    f"{m:.3f} +- {s:.3f}" for m, s in zip(each.mean(0), each.std(0), strict=True)
                ]
                print(f"| {budget} a class | {how} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
