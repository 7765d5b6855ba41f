"""Images: how fast files become 28 x 28 pixels, and what keeping their shape would cost.

    python benchmarks/images.py                    files a second on one core, by kind and size
    python benchmarks/images.py --shapes DATA.npz  accuracy of pictures that are not square, scaled
                                                   side by side or with margins

DATA.npz holds X (n, 28, 28) uint8 and y (n,), as mnist. Pictures are blurred noise, which
compresses about as photos do. Process CPU time, the best of three.
"""

import argparse
import io
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.neighbors import KNeighborsClassifier

from streamlearn.wire import image_codec, image_pixels

Pixels = NDArray[np.uint8]
SIDE = 28
N_LEARNED = 4000


def picture(height: int, width: int, rng: np.random.Generator) -> Image.Image:
    """Blobs of 16 pixels with a little noise on them."""
    blobs = rng.integers(0, 256, (max(height // 16, 2), max(width // 16, 2), 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(blobs).resize((width, height), Image.Resampling.BICUBIC))
    noisy = smooth.astype(np.int64) + rng.integers(-6, 7, smooth.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def file_of(image: Image.Image, kind: str, **options: bool) -> bytes:
    """The image as a file."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def seconds(raw: bytes) -> float:
    """CPU seconds to read it once, the best of three."""
    best = float("inf")
    for _ in range(3):
        n, start = 0, time.process_time()
        while time.process_time() - start < 0.2:
            image_codec.read(raw)
            n += 1
        best = min(best, (time.process_time() - start) / n)
    return best


def speeds() -> None:
    """The table of docs/inputs.md."""
    rng = np.random.default_rng(0)
    grey = picture(SIDE, SIDE, rng).convert("L")
    files = {"PNG, 28 x 28 grey": file_of(grey, "PNG"), "JPEG, 28 x 28 grey": file_of(grey, "JPEG")}
    for width, height in ((224, 224), (640, 480), (4000, 3000)):
        image = picture(height, width, rng)
        files[f"PNG, {width} x {height}"] = file_of(image, "PNG")
        files[f"JPEG, {width} x {height}"] = file_of(image, "JPEG")
        files[f"JPEG, {width} x {height}, progressive"] = file_of(image, "JPEG", progressive=True)
    print("| file | KiB | a second |\n|---|---|---|")
    for name, raw in files.items():
        print(f"| {name} | {len(raw) / 1024:,.1f} | {1 / seconds(raw):,.0f} |", flush=True)


def with_margins(image: Pixels) -> Pixels:
    """Scaled by one factor, in the middle of black."""
    height, width = (max(1, round(side * SIDE / max(image.shape))) for side in image.shape)
    small = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    framed = np.zeros((SIDE, SIDE), np.uint8)
    top, left = (SIDE - height) // 2, (SIDE - width) // 2
    framed[top : top + height, left : left + width] = np.asarray(small)
    return framed


def cut_out(image: Pixels) -> Pixels:
    """Its bounding box."""
    rows, columns = np.flatnonzero(image.any(axis=1)), np.flatnonzero(image.any(axis=0))
    return image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def placed(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Anywhere in a picture three times as wide."""
    wide = np.zeros((SIDE, 3 * SIDE), np.uint8)
    left = int(rng.integers(0, 2 * SIDE + 1))
    wide[:, left : left + SIDE] = image
    return wide


def shapes(path: str) -> None:
    """Accuracy of three nearest neighbours, three splits."""
    with np.load(path) as data:
        X, y = data["X"], data["y"]
    ways: dict[str, Callable[[Pixels], Pixels]] = {
        "each side": image_pixels.shrink,
        "margins": with_margins,
    }
    for seed in range(3):
        rng = np.random.default_rng(seed)
        mixed = rng.permutation(len(X))
        learned, asked = mixed[:N_LEARNED], mixed[N_LEARNED:]
        shown = {"bounding boxes": list(map(cut_out, X)), "anywhere": [placed(x, rng) for x in X]}
        for name, images in shown.items():
            for way, scale in ways.items():
                rows = np.array([scale(image) for image in images]).reshape(len(X), -1) / 255.0
                model = KNeighborsClassifier(3).fit(rows[learned], y[learned])
                right = model.score(rows[asked], y[asked])
                print(f"seed {seed}  {name:15s} {way:10s} {right:.3f}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", metavar="DATA.npz")
    flags = parser.parse_args()
    if flags.shapes:
        shapes(flags.shapes)
    else:
        speeds()
