"""Stage 6, memory: a stream's rehearsal with all that belongs to the events in it.

In: a step as it was tested, its rows, texts and images. Out: where its events were kept; what the
adapted network replays; how `keep` weighs its heads. Beside the samples lie the kept events' pixels
(`kept_images`) and what images and texts are clustered by (`encodings`).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlearn.core.encodings import Encodings
from streamlearn.core.kept_images import MOST_ASKED, KeptImages, first_of_each
from streamlearn.core.mixture import Mixture
from streamlearn.core.rehearsal import Rehearsal, Replay, Taken
from streamlearn.core.ridge import EAGER_EVENTS
from streamlearn.core.tested import Tested
from streamlearn.core.text import Texts
from streamlearn.core.vision import Images

KEEP_EVENTS, KEEP_SHARE, KEEP_LONGEST = 256, 8, 2048  # labelled events between weighings of keep:
# at least KEEP_EVENTS, then this part of the events so far, at most KEEP_LONGEST


class Memory:
    """What a stream remembers, in fixed memory for given inputs, images and classes."""

    def __init__(self, *, capacity: int, key: int) -> None:
        """`capacity` events a class in each sample; `key` is the randomness: see `stream_key`."""
        self.rehearsal = Rehearsal(capacity=capacity, key=key)
        self.images = KeptImages()
        self.encodings = Encodings()
        self._since = 0  # labelled events since `keep` was weighed

    def grow(self, *, texts: bool, n_images: int) -> None:
        """Room for what of texts and of images events are clustered by."""
        self.encodings = self.encodings.grown(texts=texts, n_images=n_images)

    def offer(
        self,
        mixture: Mixture,
        tested: Tested,
        rows: NDArray[np.float64],
        codes: NDArray[np.int32],
        events: NDArray[np.int64],
        event_time_s: NDArray[np.float64],
        texts: Texts,
        images: Images,
        *,
        numbers: bool,
    ) -> Taken:
        """Keep what is worth it of a step's events (n,); `numbers`: there are number columns."""
        with_each, encoded = mixture.network_blocks(tested), None
        if self.encodings.width:
            encoded = mixture.encode(self.encodings, tested)
        scale = self._scale(mixture, numbers=numbers)
        kept = self.rehearsal.offer(rows, codes, events, event_time_s, scale, with_each, encoded)
        if texts:
            self.rehearsal.note_words(kept, texts)
        if images:
            taken = (kept.clusters >= 0) | (kept.uniform >= 0)
            self.images.take(events, taken, images)
            if self.images.is_full:
                self.images.forget_others(self.rehearsal.events())
        return kept

    def _scale(self, mixture: Mixture, *, numbers: bool) -> NDArray[np.float64]:
        scale = mixture.experts.inverse_std
        return self.encodings.scale(scale, numbers=numbers) if self.encodings.width else scale

    def review(
        self, mixture: Mixture, n_labelled: int, *, new_class: bool, numbers: bool, n_images: int
    ) -> None:
        """After so many more labelled events: which sample to trust, and the weights of `keep`."""
        self._since += n_labelled
        wait = min(max(KEEP_EVENTS, mixture.n // KEEP_SHARE), KEEP_LONGEST)
        if self._since < wait and mixture.n > EAGER_EVENTS and not new_class:
            return
        self.rehearsal.choose(self.encodings.compared(self._scale(mixture, numbers=numbers)))
        self._weigh_keep(mixture, n_images)
        self._since = 0

    def _weigh_keep(self, mixture: Mixture, n_images: int) -> None:
        kept = self.rehearsal.uniform.kept()
        rows = kept.rows[:, : mixture.experts.layout.n_inputs]
        if not n_images:
            mixture.weigh_keep(rows, (), kept.codes)
            return
        asked = first_of_each(kept.codes, MOST_ASKED)
        images = self.images.of(kept.event[asked], n_images)
        mixture.weigh_keep(rows[asked], images, kept.codes[asked])

    def replay(self, n: int, draw_key: int, n_images: int) -> tuple[Replay, Images]:
        """`n` events of the trusted sample, and their images."""
        replay = self.rehearsal.replay(n, draw_key, members=True)
        return replay, self.images.of(replay.event, n_images)

    def state(
        self, mixture: Mixture, n_images: int
    ) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Everything needed to go on: a JSON-able dict, and arrays."""
        rehearsal, own = self.rehearsal.state()
        meta: dict[str, Any] = {"since_keep": self._since, "rehearsal": rehearsal}
        arrays = {f"rehearsal/{name}": array for name, array in own.items()}
        if self.encodings.width:
            meta["encodings"] = self.encodings.as_json(mixture.slow)
        if n_images:
            pixels = self.images.state(self.rehearsal.events(), n_images)
            arrays |= {f"images/{name}": array for name, array in pixels.items()}
        return meta, arrays

    def resume(
        self,
        meta: Mapping[str, Any],
        parts: Mapping[str, Mapping[str, NDArray[Any]]],
        mixture: Mixture,
        *,
        texts: bool,
        n_images: int,
    ) -> None:
        """Go on from what `state` gave, its arrays by their first names.

        Encodings may be of another version: then kept events are encoded anew. KeyError,
        ValueError, StateError where it doesn't fit.
        """
        self._since = int(meta["since_keep"])
        self.rehearsal = Rehearsal.restore(meta["rehearsal"], parts["rehearsal"])
        if n_images:
            self.images = KeptImages.restore(parts["images"])
        said = meta.get("encodings")
        self.encodings = Encodings.from_json(said)
        now = self.encodings.grown(texts=texts, n_images=n_images)
        if now.width and now.as_json(mixture.slow) != said:
            self.encodings = now

            def again(events: NDArray[np.int64]) -> NDArray[np.float64]:
                """(m, w) of kept events by their images; what they said is not kept whole."""
                images = self.images.of(events, n_images)
                return mixture.encode_images(now, images, len(events))

            self.rehearsal.renew(again)
