"""Images from npz archives, folders, tables of paths, and tables of bytes."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from streamlearn.core.records import Frame
from streamlearn.errors import InputError
from streamlearn.sources import Inferred, grouping, open_source
from streamlearn.wire import event_codec, image_pixels
from tests.wire.pictures import JPEG, PNG, file_of, slope


def noise(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def read(path: Path, **asked: Any) -> tuple[list[Frame], Inferred]:
    with open_source(path, **asked) as source:
        return list(source.frames()), source.inferred


def pixels(frames: list[Frame], column: str = "image") -> NDArray[np.uint8]:
    return np.concatenate([frame.images[column].pixels for frame in frames])


def labels(frames: list[Frame]) -> list[Any]:
    return [label for frame in frames for label in frame.labels()]


def lines(inferred: Inferred) -> str:
    return "\n".join(inferred.lines())


# --- npz ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(28, 28), (28, 28, 1), (20, 30, 3), (64, 48, 4), (8, 8)])
def test_an_npz_of_bytes_holds_images(tmp_path: Path, shape: tuple[int, ...]) -> None:
    X = noise(300, *shape)
    np.savez(tmp_path / "i.npz", X=X, y=np.arange(300) % 3, order=np.arange(300)[::-1])
    frames, inferred = read(tmp_path / "i.npz")
    assert "image: image (as 28 x 28 grey)" in lines(inferred)
    assert [len(frame) for frame in frames] == [256, 44]
    assert frames[0].columns == () and frames[0].numbers.shape == (256, 0)
    expected = [image_pixels.shrink(one) for one in X[::-1]]
    np.testing.assert_array_equal(pixels(frames), expected)
    assert labels(frames) == [at % 3 for at in range(299, -1, -1)]
    assert frames[0].images["image"].present.all()
    assert frames[0].images["image"].raw[0] is None, "nobody asked for files"


@pytest.mark.parametrize("shape", [(28, 28), (20, 30, 3), (40, 40, 4)])
def test_what_is_fed_is_what_is_evaluated(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.savez(tmp_path / "i.npz", X=noise(5, *shape), y=np.arange(5) % 3)
    [evaluated], _ = read(tmp_path / "i.npz")
    [fed], _ = read(tmp_path / "i.npz", keep_files=True)
    value, headers = event_codec.encode(fed)
    learned, rejected = event_codec.decode(value, b"i", headers, 0.0)
    assert rejected == ()
    np.testing.assert_array_equal(pixels([learned]), pixels([evaluated]))
    assert labels([learned]) == labels([evaluated])


@pytest.mark.parametrize(
    "X", [noise(60, 28, 28) / 255, noise(60, 4, 4), noise(60, 8, 8, 2), noise(60, 9)]
)
def test_other_arrays_are_numbers(tmp_path: Path, X: NDArray[Any]) -> None:
    np.savez(tmp_path / "i.npz", X=X, y=np.arange(60) % 3)
    [frame], _ = read(tmp_path / "i.npz")
    assert not frame.images and frame.numbers.shape == (60, X[0].size)


def test_images_have_no_columns_to_ignore(tmp_path: Path) -> None:
    np.savez(tmp_path / "i.npz", X=noise(5, 28, 28), y=np.arange(5) % 3)
    with pytest.raises(InputError, match="X holds images"):
        read(tmp_path / "i.npz", ignore=("x3",))


def test_shared_images(shared_data: Callable[[str], Path]) -> None:
    path = shared_data("mnist_5k/data.npz")
    frames, _ = read(path)
    with np.load(path) as data:
        np.testing.assert_array_equal(pixels(frames), data["X"])


# --- folders -----------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures of the levels 0..11, by turns of a cat and of a dog, and what is none."""
    home = tmp_path / "pets"
    for at in range(12):
        flat = np.full((30, 40, 3), 20 * at, np.uint8)
        path = home / ("cat", "dog")[at % 2] / f"pet {at}.{('png', 'JPG', 'jpeg')[at % 3]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file_of(flat, "PNG" if at % 3 == 0 else "JPEG"))
        os.utime(path, (1e9 - at, 1e9 - at))
    (home / "cat" / "notes.txt").write_text("mine")
    (home / "cat" / ".hidden.png").write_bytes(PNG)
    (home / ".trash").mkdir()
    (home / ".trash" / "x.png").write_bytes(PNG)
    return home


def levels(frames: list[Frame]) -> list[int]:
    return [round(one.mean() / 20) for one in pixels(frames)]


def test_a_folder_of_folders(folder: Path) -> None:
    frames, inferred = read(folder)
    assert levels(frames) == list(range(12)), "10 comes after 9"
    assert labels(frames) == ["cat", "dog"] * 6
    assert frames[0].stream == "pets" and frames[0].event_ids[10] == "cat/pet 10.JPG"
    assert frames[0].event_time_s.tolist() == list(range(12))
    said = lines(inferred)
    assert "a folder of 12 images" in said and "label: the names of its subfolders" in said
    assert "1 files left out" in said and "by the files' names" in said


def test_other_orders(folder: Path) -> None:
    frames, inferred = read(folder, order="time")
    assert levels(frames) == list(range(11, -1, -1)) and inferred.timed
    assert frames[0].event_time_s.tolist() == [1e9 - at for at in range(11, -1, -1)]
    mixed, _ = read(folder, order="shuffle:7")
    again, _ = read(folder, order="shuffle:7")
    other, _ = read(folder, order="shuffle:8")
    assert levels(mixed) == levels(again) != levels(other)
    assert sorted(levels(mixed)) == list(range(12))


def test_labels_that_are_numbers_and_pictures_without_one(tmp_path: Path) -> None:
    for name in ("7/a.png", "8/train/b.png", "c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(PNG)
    frames, _ = read(tmp_path)
    assert labels(frames) == [7, 8, None]


def test_a_broken_picture_is_left_out_and_said(folder: Path) -> None:
    (folder / "cat" / "pet 4.JPG").unlink()
    (folder / "cat" / "pet 4.png").write_bytes(PNG[:40])
    (folder / "dog" / "pet 5.png").write_bytes(b"")
    frames, inferred = read(folder)
    assert levels(frames) == [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11]
    assert "image: 2 rows left out" in lines(inferred)


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"order": "size"}, "--order is name, time, or shuffle:SEED"),
        ({"order": "shuffle:x"}, "--order is name, time, or shuffle:SEED"),
        ({"label": "pet"}, "a folder has no columns"),
        ({"stream": "pet"}, "a folder has no columns"),
        ({"images": ("pet",)}, "names a column of a table"),
    ],
)
def test_what_a_folder_has_not(folder: Path, asked: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError, match=why):
        read(folder, **asked)


def test_a_folder_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no PNG or JPEG"):
        read(tmp_path)
    (tmp_path / "t.csv").write_text("a,label\n1,x\n")
    with pytest.raises(InputError, match="for folders of images"):
        read(tmp_path / "t.csv", order="time")


# --- tables ------------------------------------------------------------------------------------


def test_a_table_of_paths_beside_numbers_and_texts(folder: Path) -> None:
    table = folder / "pets.csv"
    table.write_text(
        "weight,photo,about,label\n"
        "4.5,cat/pet 0.png,a cat that sleeps on the sofa all day long,cat\n"
        ",dog/pet 1.JPG,,dog\n"
        "5,,nobody took a picture of this one so far,cat\n"
        f"6,{folder / 'dog' / 'pet 3.png'},a dog that was seen with a stick,dog\n"
        "7,cat/gone.png,a cat that is gone,cat\n"
        "8,cat/notes.txt,no cat but a text,cat\n"
    )
    [frame], inferred = read(table, images=("photo",))
    photo = frame.images["photo"]
    assert photo.present.tolist() == [True, True, False, True, False]
    assert [round(float(one.mean()) / 20) for one in photo.pixels] == [0, 1, 0, 3, 0]
    assert frame.columns == ("weight",) and np.isnan(frame.numbers[1, 0])
    assert frame.texts["about"][1] is None and frame.labels() == ("cat", "dog", "cat", "dog", "cat")
    said = lines(inferred)
    assert "image: photo" in said and "1 rows left out, their image can't be read (neither" in said
    assert "1 files were not found, taken as missing" in said


def test_paths_that_are_none(folder: Path) -> None:
    table = folder / "pets.csv"
    table.write_text("photo,other,label\nx.png,1,a\ny.png,2,b\n")
    with pytest.raises(InputError, match="there is no file"):
        read(table, images=("photo",))
    with pytest.raises(InputError, match="--image 'picture' is no column"):
        read(table, images=("picture",))
    with pytest.raises(InputError, match="has no column to learn from"):
        read(table, ignore=("photo", "other"))


@pytest.mark.parametrize("kind", ["binary", "large_binary", "struct"])
def test_parquet_with_bytes(tmp_path: Path, kind: str) -> None:
    cells: list[bytes | None] = [PNG, None, JPEG, PNG[:30]] * 100
    column: Any = pa.array(cells, pa.large_binary() if kind == "large_binary" else pa.binary())
    if kind == "struct":  # as data sets of Hugging Face have them
        column = pa.StructArray.from_arrays([column, pa.nulls(400, pa.string())], ["bytes", "path"])
    table = pa.table(
        {"photo": column, "x": np.arange(400) % 7, "label": ["a", "b", "a", "b"] * 100,
         "blob": [b"what"] * 400}
    )  # fmt: skip
    pq.write_table(table, tmp_path / "t.parquet")
    frames, inferred = read(tmp_path / "t.parquet", keep_files=True)
    assert sum(map(len, frames)) == 300
    raw = [one for frame in frames for one in frame.images["photo"].raw]
    assert raw == [PNG, None, JPEG] * 100
    np.testing.assert_array_equal(pixels(frames, "photo")[3], slope())
    assert frames[0].columns == ("x",) and labels(frames)[:3] == ["a", "b", "a"]
    assert "bytes that are neither PNG nor JPEG" in lines(inferred)
    assert "photo: 100 rows left out" in lines(inferred)


def test_large_files_do_not_wait_for_a_full_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grouping, "MAX_WAITING_BYTES", 100 * len(PNG))
    table = pa.table({"i": [PNG] * 300, "s": ["a", "b", "c"] * 100, "label": ["x"] * 300})
    pq.write_table(table, tmp_path / "t.parquet")
    frames, _ = read(tmp_path / "t.parquet", stream="s", keep_files=True)
    assert max(map(len, frames)) < 64 and sum(map(len, frames)) == 300
    whole, _ = read(tmp_path / "t.parquet", stream="s")
    assert [len(frame) for frame in whole] == [100, 100, 100]
