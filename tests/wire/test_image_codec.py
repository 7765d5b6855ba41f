"""Images against a slow, obvious reading of the same pixels, and against hostile files."""

import io
import struct
import threading
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps

from streamlearn.core.records import IMAGE_SIDE, ImageColumn
from streamlearn.wire import image_codec, image_pixels
from streamlearn.wire.event_rules import RefusedError
from tests.wire.pictures import JPEG, PNG, file_of, slope

ORIENTATION = 0x0112


def pixels(raw: bytes) -> NDArray[np.int64]:
    return image_codec.read(raw).pixels.astype(np.int64)


def noise(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def blocks(grey: NDArray[Any], factor: int) -> NDArray[np.float64]:
    """Every pixel as a square of factor x factor."""
    return np.kron(grey, np.ones((factor, factor)))


def triangle(n: int) -> NDArray[np.float64]:
    """(IMAGE_SIDE, n) weights: each output pixel averages what lies within one of its own widths
    of its centre, the nearer the more."""
    scale = n / IMAGE_SIDE
    width = max(scale, 1.0)
    weights = np.zeros((IMAGE_SIDE, n))
    for out in range(IMAGE_SIDE):
        centre = (out + 0.5) * scale
        for at in range(n):
            weights[out, at] = max(0.0, 1 - abs(at + 0.5 - centre) / width)
        weights[out] /= weights[out].sum()
    return weights


def slowly(grey: NDArray[Any]) -> NDArray[np.float64]:
    """(IMAGE_SIDE, IMAGE_SIDE) of grey pixels (h, w)."""
    height, width = grey.shape
    return triangle(height) @ grey.astype(np.float64) @ triangle(width).T


def luma(colour: NDArray[np.uint8]) -> NDArray[np.float64]:
    return colour.astype(np.float64) @ [0.299, 0.587, 0.114]


# --- what an image becomes ---------------------------------------------------------------------


def test_an_image_of_the_right_size_is_itself() -> None:
    grey = noise(IMAGE_SIDE, IMAGE_SIDE)
    np.testing.assert_array_equal(pixels(file_of(grey)), grey)
    np.testing.assert_array_equal(image_pixels.shrink(grey), grey)


@given(st.integers(1, 80), st.integers(1, 80), st.integers(0, 99))
@settings(max_examples=60, derandomize=True, deadline=None)
def test_any_size_equals_the_slow_version(height: int, width: int, seed: int) -> None:
    grey = noise(height, width, seed=seed)
    assert abs(pixels(file_of(grey)) - slowly(grey)).max() <= 1.5  # two roundings


@pytest.mark.parametrize("factor", [3, 20, 60])
def test_large_images_are_shrunk_to_what_they_show(factor: int) -> None:
    shown = blocks(slope(), factor).astype(np.uint8)
    assert abs(pixels(file_of(shown)) - slope()).max() <= 4
    assert abs(pixels(file_of(shown, "JPEG", quality=95)) - slope()).max() <= 6


def test_sides_are_scaled_each_on_its_own() -> None:
    assert abs(pixels(file_of(slope(56, 280))) - slope()).max() <= 4
    assert abs(pixels(file_of(slope(280, 56), "JPEG")) - slope()).max() <= 6


def test_colours_become_their_luma() -> None:
    colour = noise(IMAGE_SIDE, IMAGE_SIDE, 3)
    assert abs(pixels(file_of(colour)) - luma(colour)).max() <= 1
    palette = Image.fromarray(colour).quantize(16)
    shown = np.asarray(palette.convert("RGB"))
    assert abs(pixels(file_of(palette)) - luma(shown)).max() <= 1
    bits = Image.fromarray(colour).convert("1")
    np.testing.assert_array_equal(pixels(file_of(bits)), np.asarray(bits) * 255)


def test_cmyk_jpegs() -> None:
    flat = np.full((40, 40, 3), (200, 100, 50), np.uint8)
    raw = file_of(Image.fromarray(flat).convert("CMYK"), "JPEG")
    assert Image.open(io.BytesIO(raw)).mode == "CMYK"
    assert abs(pixels(raw) - luma(flat[:IMAGE_SIDE, :IMAGE_SIDE])).max() <= 3


def test_sixteen_bits_are_read_by_their_upper_eight() -> None:
    grey = noise(IMAGE_SIDE, IMAGE_SIDE).astype(np.uint16)
    raw = file_of(grey * 256 + 255 - grey)
    assert raw[24] == 16  # bits a channel
    np.testing.assert_array_equal(pixels(raw), grey)
    clear = file_of(np.full((IMAGE_SIDE, IMAGE_SIDE), 300, np.uint16), transparency=300)
    assert (pixels(clear) == 255).all()


def test_sixteen_bits_of_colour() -> None:
    """Pillow does not write such, so by hand: PNG, colour type 2 and 6, depth 16."""
    colour = noise(IMAGE_SIDE, IMAGE_SIDE, 3)
    for kind, channels in (
        (2, colour),
        (6, np.dstack([colour, np.full_like(colour[..., :1], 255)])),
    ):
        deep = (channels.astype(">u2") * 257).tobytes()
        size = len(deep) // IMAGE_SIDE
        lines = b"".join(b"\0" + deep[at : at + size] for at in range(0, len(deep), size))
        header = struct.pack(">IIBBBBB", IMAGE_SIDE, IMAGE_SIDE, 16, kind, 0, 0, 0)
        raw = by_hand((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
        assert abs(pixels(raw) - luma(colour)).max() <= 1


def by_hand(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of these chunks."""
    return image_codec.PNG_START + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_lies_on_white(mode: str) -> None:
    grey, alpha = noise(IMAGE_SIDE, IMAGE_SIDE), noise(IMAGE_SIDE, IMAGE_SIDE, seed=1)
    image = Image.merge("LA", (Image.fromarray(grey), Image.fromarray(alpha))).convert(mode)
    share = alpha / 255
    assert abs(pixels(file_of(image)) - (share * grey + (1 - share) * 255)).max() <= 1.5


def test_transparent_colours_of_a_palette_lie_on_white() -> None:
    palette = Image.fromarray(noise(IMAGE_SIDE, IMAGE_SIDE, 3)).quantize(16)
    chosen, grey = np.asarray(palette), luma(np.asarray(palette.convert("RGB")))
    one = file_of(palette, transparency=5)
    assert abs(pixels(one) - np.where(chosen == 5, 255, grey)).max() <= 1
    half = file_of(palette, transparency=bytes([255] * 5 + [128] + [255] * 10))
    mixed = grey * 128 / 255 + 255 * 127 / 255
    assert abs(pixels(half) - np.where(chosen == 5, mixed, grey)).max() <= 1.5


def test_a_colour_that_stands_for_transparent() -> None:
    grey = noise(IMAGE_SIDE, IMAGE_SIDE)
    raw = file_of(grey, transparency=int(grey[3, 4]))
    np.testing.assert_array_equal(pixels(raw), np.where(grey == grey[3, 4], 255, grey))


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_images_are_turned_upright(turn: int, kind: str) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = turn
    raw = file_of(slope(), kind, exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(raw)))).astype(int)
    np.testing.assert_array_equal(pixels(raw), upright)
    wide = file_of(slope(60, 90), kind, exif=exif)
    shown = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(wide))))
    assert abs(pixels(wide) - slowly(shown)).max() <= 2


def test_of_moving_pictures_the_first_counts() -> None:
    first, second = Image.fromarray(slope()), Image.fromarray(255 - slope())
    raw = file_of(first, save_all=True, append_images=[second])
    assert b"acTL" in raw
    np.testing.assert_array_equal(pixels(raw), slope())
    stereo = file_of(first, "MPO", save_all=True, append_images=[second])
    assert stereo.startswith(image_codec.JPEG_START)
    assert abs(pixels(stereo) - slope()).max() <= 4


# --- columns -----------------------------------------------------------------------------------


def test_each_different_file_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []
    real = image_pixels._opened

    def counted(raw: bytes) -> Any:
        opened.append(len(raw))
        return real(raw)

    monkeypatch.setattr(image_pixels, "_opened", counted)
    refused: dict[int, str] = {}
    column = image_codec.Pictures().column([PNG, None, JPEG, b"GIF", PNG], refused.setdefault)
    assert opened == [len(PNG), len(JPEG), 3]
    assert list(refused) == [3] and refused[3] == "neither PNG nor JPEG"
    assert column.present.tolist() == [True, False, True, False, True]
    np.testing.assert_array_equal(column.pixels[0], column.pixels[4])


def test_columns_are_cut_picked_and_joined_as_their_rows() -> None:
    column = image_codec.Pictures().column([PNG, None, JPEG, PNG], lambda row, why: None)
    back = ImageColumn.joined([column.rows(0, 1), column.rows(1, 4)])
    picked = column.pick(np.array([2, 0], np.intp))
    assert back.raw == column.raw and picked.raw == (JPEG, PNG)
    np.testing.assert_array_equal(back.pixels, column.pixels)
    np.testing.assert_array_equal(picked.pixels, column.pixels[[2, 0]])
    assert picked.present.all() and len(picked) == 2
    assert not ImageColumn.missing(3).present.any()


@pytest.mark.parametrize("shape", [(28, 28), (9, 14), (9, 14, 1), (9, 14, 3), (30, 20, 4)])
def test_arrays_become_what_their_files_do(shape: tuple[int, ...]) -> None:
    array = noise(*shape)
    np.testing.assert_array_equal(
        image_pixels.shrink(array), image_codec.read(image_pixels.to_png(array)).pixels
    )


@pytest.mark.parametrize("array", [noise(4), noise(4, 4, 2), noise(2, 2, 2, 3), np.ones((4, 4))])
def test_arrays_that_are_no_image(array: NDArray[Any]) -> None:
    with pytest.raises(RefusedError, match="give uint8 of shape"):
        image_pixels.shrink(array)


# --- what is refused ---------------------------------------------------------------------------


def claims(width: int, height: int, kind: int = 0) -> bytes:
    """A PNG of a few bytes that says it is so large."""
    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    return by_hand((b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b""))


def refusal(raw: bytes) -> str:
    with pytest.raises(RefusedError) as caught:
        image_codec.read(raw)
    return str(caught.value)


def jpeg_of_size(width: int, height: int) -> bytes:
    at = JPEG.index(b"\xff\xc0")  # start of frame: length, bits, height, width
    return JPEG[: at + 5] + struct.pack(">HH", height, width) + JPEG[at + 9 :]


@pytest.mark.parametrize(
    "raw",
    [
        claims(5001, 5000),
        claims(1 << 30, 1 << 30),
        claims((1 << 31) - 1, 1),
        claims(1, 16_385),
        claims(16_385, 1),
        jpeg_of_size(65_500, 65_500),
        jpeg_of_size(5001, 5000),
    ],
)
def test_what_claims_to_be_large_is_refused_before_its_pixels_are_read(
    raw: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(self: object) -> None:
        raise AssertionError("pixels are read")

    monkeypatch.setattr(image_pixels.PngImageFile, "load", load)
    monkeypatch.setattr(image_pixels.JpegImageFile, "load", load)
    assert "send it smaller" in refusal(raw) or "broken" in refusal(raw)


def test_a_frame_of_many_large_images_is_read_as_far_as_is_bearable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(image_codec, "MAX_FRAME_PIXELS", 3 * 1000)
    files = [file_of(noise(20, 50, seed=seed)) for seed in range(5)]
    refused: dict[int, str] = {}
    column = image_codec.Pictures().column([*files, files[0]], refused.setdefault)
    assert list(refused) == [3, 4] and "together" in refused[3]
    assert column.present.tolist() == [True, True, True, False, False, True]


def test_broken_images_have_cost_their_pixels_and_are_tried_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(image_codec, "MAX_FRAME_PIXELS", 3 * 1000)
    broken = [file_of(noise(20, 50, seed=seed))[:-200] for seed in range(2)]
    good = [file_of(noise(20, 50, seed=seed)) for seed in (7, 8)]
    refused: dict[int, str] = {}
    cells = [broken[0], *[broken[1]] * 9, good[0], good[1]]
    column = image_codec.Pictures().column(cells, refused.setdefault)
    assert all("a broken PNG" in refused[row] for row in range(10))
    assert "together" in refused[11]
    assert np.flatnonzero(column.present).tolist() == [10]


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO"])
def test_other_formats_are_refused(kind: str) -> None:
    assert refusal(file_of(slope(), kind)) == "neither PNG nor JPEG"
    assert refusal(b"") == "neither PNG nor JPEG"


@pytest.mark.parametrize("raw", [PNG, JPEG, file_of(noise(40, 30, 3))], ids=["png", "jpeg", "rgb"])
def test_a_file_cut_short_is_refused_or_whole(raw: bytes) -> None:
    whole = pixels(raw)
    n_whole = 0
    for size in range(len(raw)):
        try:
            found = pixels(raw[:size])
        except RefusedError:
            continue
        n_whole += 1
        np.testing.assert_array_equal(found, whole)
    assert n_whole < 40, "only the end marks may be gone"


def test_a_jpeg_of_very_many_scans_is_refused() -> None:
    progressive = file_of(noise(64, 64), "JPEG", progressive=True)
    pixels(progressive)
    last = progressive.rindex(b"\xff\xda")
    assert "scans" in refusal(progressive[:-2] + progressive[last:-2] * 30 + b"\xff\xd9")


def test_what_pillow_warns_about_is_refused_whatever_filters_there_are() -> None:
    once = (b"acTL", struct.pack(">II", 0, 0))  # an animation of no pictures
    header = (b"IHDR", struct.pack(">IIBBBBB", 28, 28, 8, 0, 0, 0, 0))
    lines = (b"IDAT", zlib.compress(bytes(29 * 28)))
    assert not pixels(by_hand(header, lines, (b"IEND", b""))).any()
    raw = by_hand(header, once, lines, (b"IEND", b""))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert "APNG" in refusal(raw)


def test_warning_filters_survive_many_threads() -> None:
    before = list(warnings.filters)

    def many() -> None:
        for _ in range(50):
            image_codec.read(PNG)

    threads = [threading.Thread(target=many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert warnings.filters == before
