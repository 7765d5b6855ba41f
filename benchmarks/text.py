"""The text expert alone: accuracy, speed, memory, bytes an update, against scikit-learn.

    python benchmarks/text.py NEWS.csv.gz [--label label] [--step 32] [--seeds 3]
        [--stop-words keep]

Test-then-train over all rows in the file's order, every other column but `t` as text; labels come
after all events of a step are predicted. `update` is what a subscriber needs after a step: changed
rows and their numbers, zstd level 3; those with a new class or a grown table are whole and are
counted apart. The peer: SGDClassifier (log loss) on the same hashed grams with scikit-learn's
tf-idf from what came before.
"""

import argparse
import csv
import gzip
from pathlib import Path
from time import process_time

import numpy as np
import zstandard
from numpy.typing import NDArray
from scipy.sparse import csr_array
from sklearn.linear_model import SGDClassifier

from streamlearn.core.text import TextExpert, TextSettings, hashed_grams


def read(path: Path, label: str) -> tuple[dict[str, list[str | None]], NDArray[np.int64]]:
    """Text columns, and class codes in order of appearance."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    columns: dict[str, list[str | None]] = {
        name: [row[name] for row in rows] for name in rows[0] if name not in (label, "t")
    }
    codes: dict[str, int] = {}
    return columns, np.array([codes.setdefault(row[label], len(codes)) for row in rows])


def update_bytes(
    before: dict[str, NDArray[np.generic]], after: dict[str, NDArray[np.generic]]
) -> tuple[bool, int]:
    """Whether it is whole, and its size."""
    parts: list[bytes] = []
    whole = before["text/weights"].shape != after["text/weights"].shape
    for name, tensor in after.items():
        if whole:
            parts.append(tensor.tobytes())
            continue
        same = tensor == before[name]
        rows = np.flatnonzero(~(same if same.ndim == 1 else same.all(axis=1))).astype(np.int32)
        parts += [rows.tobytes(), tensor[rows].tobytes()]
    return whole, len(zstandard.ZstdCompressor(3).compress(b"".join(parts)))


def ours(
    columns: dict[str, list[str | None]],
    y: NDArray[np.int64],
    step: int,
    seed: int,
    settings: TextSettings,
) -> None:
    """One pass; prints a line."""
    expert = TextExpert(key=seed * 7919, settings=settings)
    right, log_loss, spent = 0, 0.0, 0.0
    sizes: dict[bool, list[int]] = {False: [], True: []}
    for start in range(0, len(y), step):
        cut = slice(start, start + step)
        texts, codes = {name: column[cut] for name, column in columns.items()}, y[cut]
        watched = (start // step) % 8 == 0
        before = expert.weights().tensors() if watched else {}
        began = process_time()
        scores = expert.predict(texts)
        expert.learn(texts, codes)
        spent += process_time() - began
        if scores.shape[1]:
            right += int((scores.argmax(axis=1) == codes).sum())
            known = codes < scores.shape[1]
            log_loss -= scores[known, codes[known]].sum()
        if watched:
            whole, size = update_bytes(before, expert.weights().tensors())
            sizes[whole].append(size)
    kb = {whole: np.mean(found or [0]) / 1e3 for whole, found in sizes.items()}
    print(
        f"seed {seed}: accuracy {right / len(y):.4f}, log loss {log_loss / len(y):.3f}, "
        f"{len(y) / spent:,.0f} events/s, {expert.nbytes / 1e6:.1f} MB, {expert.n_rows} rows, "
        f"update {kb[False]:.1f} kB (whole {kb[True]:.0f} kB, {len(sizes[True])} of "
        f"{len(sizes[True]) + len(sizes[False])})"
    )


def peer(columns: dict[str, list[str | None]], y: NDArray[np.int64], step: int) -> None:
    """SGDClassifier on the same grams."""
    grams = hashed_grams(columns)
    model = SGDClassifier(loss="log_loss", alpha=1e-6, random_state=0)
    texts = np.zeros(grams.shape[1])
    right, spent = 0, 0.0
    for start in range(0, len(y), step):
        began = process_time()
        rows = csr_array(grams[start : start + step])
        idf = np.log((1 + start) / (1 + texts)) + 1
        rows.data = (1 + np.log(rows.data)) * idf[rows.indices]
        length = np.sqrt(rows.multiply(rows).sum(axis=1))
        rows.data /= np.repeat(np.maximum(length, 1e-12), np.diff(rows.indptr))
        if start:
            right += int((model.predict(rows) == y[start : start + step]).sum())
        model.partial_fit(rows, y[start : start + step], classes=np.arange(int(y.max()) + 1))
        texts += np.bincount(rows.indices, minlength=len(texts))
        spent += process_time() - began
    print(
        f"SGDClassifier: accuracy {right / len(y):.4f}, {len(y) / spent:,.0f} events/s (no hashing)"
    )


def main() -> None:
    """Read the flags, run."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--label", default="label")
    parser.add_argument("--step", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--stop-words", default="keep")
    flags = parser.parse_args()
    columns, y = read(flags.file, flags.label)
    for seed in range(flags.seeds):
        ours(columns, y, flags.step, seed, TextSettings(stop_words=flags.stop_words))
    peer(columns, y, flags.step)


if __name__ == "__main__":
    main()
