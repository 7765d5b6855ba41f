"""What streams of nothing but images, and of nothing but texts, remember, from a real broker."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Producer
from PIL import Image

from streamlearn import __main__
from streamlearn.core.records import Frame, ImageColumn
from streamlearn.topics import Topics
from streamlearn.wire import event_codec
from tests.broker.running import PATIENCE_S, worker

EVENTS, FRAMES = 64, 8
SAID = ("connection from host h{} was refused after {} ms", "disk {} is full, {} blocks are left")


def kinds(number: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """(n,) 0 and 1 are the two kinds of class "odd", 2 is class "even"."""
    return np.random.default_rng(number).integers(3, size=EVENTS)


def frame(stream: str, number: int) -> Frame:
    rng, kind = np.random.default_rng(1000 + number), kinds(number)
    pixels = rng.integers(0, 80, size=(EVENTS, 28, 28)).astype(np.uint8)
    for i, which in enumerate(kind.tolist()):
        light = int(rng.integers(150, 250))
        if which == 0:
            pixels[i, 12:15, 3:25] = light
        elif which == 1:
            pixels[i, 3:25, 12:15] = light
        else:
            for row in range(3, 25):
                pixels[i, row, row : row + 3] = light
    words = [SAID[k % 2].format(*rng.integers(9000, size=2)) for k in kind.tolist()]
    times = 1e9 + number * EVENTS + np.arange(EVENTS, dtype=np.float64)
    shown = stream == "photos"
    return Frame(
        stream, (), np.zeros((EVENTS, 0)), (kind == 2).astype(np.int32), ("odd", "even"), times,
        images={"photo": ImageColumn.of(pixels)} if shown else {},
        texts={} if shown else {"line": tuple(words)},
    )  # fmt: skip


@pytest.mark.timeout(900)  # commands and a worker start, one after the other
def test_images_and_texts_have_representatives_with_counts_and_modes(
    bootstrap: str,
    topics: Topics,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    producer = Producer({"bootstrap.servers": bootstrap})
    for number in range(FRAMES):
        for stream in ("photos", "lines"):
            value, headers = event_codec.encode(frame(stream, number))
            topic = topics["events"].full_name
            producer.produce(topic, value, stream.encode(), partition=0, headers=[*headers])
    assert producer.flush(30) == 0
    monkeypatch.setenv("STREAMLEARN_BOOTSTRAP", bootstrap)
    monkeypatch.setenv("STREAMLEARN_TOPICS__PREFIX", topics.prefix)

    def run(*arguments: str) -> str | None:
        """What the command prints; None: it has no such stream yet."""
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["streamlearn", "representatives", *arguments])
            with pytest.raises(SystemExit) as end:
                __main__.main()
        printed = capsys.readouterr()
        return None if end.value.code else printed.out

    def shown(stream: str, *more: str) -> Any:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            out = run(stream, "--n", "20", "--json", *more)
            found = json.loads(out.splitlines()[-1]) if out else {"events": 0}
            if found["events"] == EVENTS * FRAMES:
                return found
            assert time.monotonic() < deadline
            time.sleep(0.5)

    with worker(bootstrap, topics.prefix, tmp_path):
        photos = shown("photos", "--images", str(tmp_path / "png"))
        lines = shown("lines")
    assert {one["class"]: one["modes"] for one in photos["classes"]} == {"odd": 2, "even": 1}
    assert {one["class"]: one["modes"] for one in lines["classes"]} == {"odd": 2, "even": 1}
    modes = set()
    for found in (photos, lines):
        for one in found["representatives"]:
            number, row = divmod(one["event"], EVENTS)
            kind = int(kinds(number)[row])
            modes.add((found["stream"], one["class"], one["mode"], kind))
            assert one["why"] in ("free", "far", "nearer") and one["verdict"] == "typical"
            own = frame(found["stream"], number)
            if found is photos:
                pixels = np.asarray(Image.open(one["images"]["photo"]))
                np.testing.assert_array_equal(pixels, own.images["photo"].pixels[row])
            else:
                assert one["texts"] == {"line": own.texts["line"][row]}
        counts = [one["count"] for one in found["representatives"]]
        assert max(counts) > 10 and sum(counts) > 0.8 * EVENTS * FRAMES
    assert len(modes) == 6  # each mode is of one kind, and each kind one mode
    table = run("photos")
    assert table is not None and "in 2 groups" in table and "free" in table
