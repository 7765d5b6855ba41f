"""The image encoder against SciPy's convolutions, and what it promises about bits and gaps."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from streamlearn.core.records import ImageColumn
from streamlearn.core.threads import one_thread
from streamlearn.core.vision import Vision, block_width, draw_theta

Theta = dict[str, NDArray[np.float32]]


def images(n: int, seed: int = 0) -> NDArray[np.uint8]:
    """Blurred noise, a blank one, an inverted one."""
    noise = np.random.default_rng(seed).normal(size=(n, 28, 28))
    smooth = ndimage.gaussian_filter(noise, (0, 1.5, 1.5))
    found = np.clip(128 + 400 * smooth, 0, 255).astype(np.uint8)
    found[0] = 0
    found[-1] = 255 - found[1]
    return found


def slowly(pixels: NDArray[np.uint8], theta: Theta) -> NDArray[np.float64]:
    """(w,) of one image in float64, a convolution a filter, a sum a window."""
    x = pixels / 255.0
    filters = theta["image/filters"].astype(float)
    contrast, scale = theta["image/contrast_scale"].tolist()
    side = filters.shape[1]
    ones = np.ones((side, side))
    total = ndimage.correlate(x, ones, mode="nearest")
    squares = ndimage.correlate(x * x, ones, mode="nearest")
    norm = np.sqrt(squares - total**2 / side**2 + contrast**2)
    roots = []
    windows = theta["image/windows"].astype(float)
    for down in windows:
        for across in windows:
            for sign in (0, 1):
                for c, kernel in enumerate(filters):
                    centred = (kernel - kernel.mean()) * (1 - 2 * sign)
                    response = ndimage.correlate(x, centred, mode="nearest") / norm
                    active = np.maximum(response - theta["image/thresholds"][sign, c], 0.0)
                    roots.append(np.cbrt(down @ active @ across))
    values = np.array(roots)
    return np.append((values - values.mean()) * scale, 1.0)


def other_theta() -> Theta:
    """As meta-training may give: other sizes, filters with a mean, thresholds of their own."""
    rng = np.random.default_rng(5)
    draw = {
        "image/filters": rng.normal(size=(6, 5, 5)) * 0.3 + 0.1,
        "image/thresholds": rng.uniform(0.0, 0.3, (2, 6)),
        "image/windows": rng.uniform(0.0, 0.1, (2, 28)),
        "image/contrast_scale": np.array([0.4, 2.0]),
    }
    return {name: tensor.astype(np.float32) for name, tensor in draw.items()}


@pytest.mark.parametrize("theta", [draw_theta(3), other_theta()], ids=["drawn", "given"])
def test_features_equal_slow_convolutions(theta: Theta) -> None:
    pixels = images(6)
    seen = Vision(theta).see([ImageColumn.of(pixels)], 6)
    assert seen.shape == (6, block_width(theta)) and seen.dtype == np.float32
    for row, image in zip(seen, pixels, strict=True):
        # a mean just above 0 in one sum and at 0 in the other: its root is far larger than it is
        assert np.abs(row - slowly(image, theta)).max() < 0.02
        assert np.abs(row - slowly(image, theta)).mean() < 1e-4


def test_an_image_has_the_same_bits_whatever_stands_beside_it() -> None:
    vision, pixels = Vision(draw_theta(0)), images(9)
    with one_thread():
        together = vision.see([ImageColumn.of(pixels)], 9)
        for at in range(9):
            alone = vision.see([ImageColumn.of(pixels[at : at + 1].copy())], 1)
            assert (alone[0] == together[at]).all()
        strided = vision.see([ImageColumn.of(pixels[::-2])], 5)
    assert (strided == together[::-2]).all()


def test_missing_images_are_zeros_and_blank_ones_are_there() -> None:
    vision, pixels = Vision(draw_theta(0)), images(4)
    some = ImageColumn.of(pixels, np.array([True, False, True, False]))
    seen = vision.see([some, None], 4).reshape(4, 2, vision.width)
    assert not seen[:, 1].any() and not seen[[1, 3]].any()
    assert seen[:, 0, -1].tolist() == [1.0, 0.0, 1.0, 0.0]
    assert not seen[0, 0, :-1].any()  # blank: nothing to see in it
    assert np.count_nonzero(seen[2, 0]) > 400
    whole = vision.see([ImageColumn.of(pixels)], 4)
    assert (seen[2, 0] == whole[2]).all()


def test_theta_follows_from_the_seed_and_is_checked() -> None:
    draw_theta.cache_clear()
    first, again = draw_theta(1), (draw_theta.cache_clear(), draw_theta(1))[1]
    assert all((first[name] == again[name]).all() for name in first)
    assert (first["image/filters"] != draw_theta(2)["image/filters"]).any()
    assert not first["image/filters"].flags.writeable
    for name, tensor in first.items():
        with pytest.raises((ValueError, KeyError)):
            Vision({**first, name: tensor[..., :-1]})
        with pytest.raises(KeyError):
            Vision({other: values for other, values in first.items() if other != name})
