"""Stage 6, representatives: a stream's micro-clusters as people want to see them.

In: a learner's state, wherever it comes from. Out: each representative with its class, what it
stands for, when and why it was kept, how often it was replayed, its values; and, by `modes`, which
group of its class it belongs to, or that it is a stray. Off the hot path: it runs where somebody
looks, not where events are learned.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlearn.core.companions import unpacked
from streamlearn.core.encodings import Encodings
from streamlearn.core.kept_images import KeptImages
from streamlearn.core.microclusters import Representative, Why
from streamlearn.core.modes import Modes, Verdict, find_modes
from streamlearn.core.outcome import LearnerState
from streamlearn.core.preprocess import CATEGORY, NUMBER, OTHER, Inputs, Standardiser
from streamlearn.core.records import Label
from streamlearn.core.rehearsal import CLUSTERS, UNIFORM, WORDS, Rehearsal
from streamlearn.errors import StateError


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """One micro-cluster, by its member."""

    label: Label
    slot: int
    count: int  # events that it stands for
    mode: int | None  # which group of its class, the largest is 0; None: of none
    verdict: Verdict
    event: int  # the stream's event count when the member came
    event_time_s: float  # seconds since the epoch
    why: Why
    replayed: int  # times, since it became a member
    values: Mapping[str, float | str]  # the member's, by column; what was missing is left out
    centre: Mapping[str, float]  # the numbers' mean over the cluster
    texts: Mapping[str, str]  # the member's, cut
    images: Mapping[str, NDArray[np.uint8]]  # the member's, as they are learned


@dataclass(frozen=True, slots=True, eq=False)
class Gallery:
    """All of a stream's representatives: class by class in order of appearance, largest first."""

    stream: str
    version: int
    events: int  # so far
    trusted: str  # the sample that is replayed: microclusters or uniform
    recalls: Mapping[str, float]
    n_seen: Mapping[Label, int]  # labelled events of each class
    n_modes: Mapping[Label, int]
    shown: tuple[Shown, ...]


def gallery(state: LearnerState) -> Gallery:
    """The representatives in a learner's state. StateError where it holds none, or is not whole."""
    meta, arrays = state.meta, state.arrays
    try:
        rehearsal = Rehearsal.restore(meta["rehearsal"], _under(arrays, "rehearsal/"))
        inputs = Inputs.from_json(meta["inputs"])
        spread = Standardiser()
        for name in ("count", "mean", "squares"):
            setattr(spread, name, np.asarray(arrays[f"scale/{name}"], np.float64))
        encodings = Encodings.from_json(meta.get("encodings"))
        scale = encodings.scale(spread.inverse_std(), numbers=bool(inputs.number_names))
        classes: list[Label] = list(meta["classes"])
        images = [str(name) for name in meta["images"]]
        names = str(meta["stream"]), int(meta["version"]), int(meta["n_events"])
    except (KeyError, TypeError, ValueError) as error:
        raise StateError(
            f"the state of stream {meta.get('stream')!r} lacks {error}: it is not whole, or of "
            "another version of streamlearn"
        ) from error
    overlap = encodings.overlap and not inputs.number_names
    if len(scale):
        sample, chosen, modes = _clustered(rehearsal, scale, overlap=overlap)
    else:
        sample, chosen, modes = _drawn(rehearsal)
    with_them = rehearsal.companions_of(sample, np.array([one.slot for one in chosen], np.int64))
    if images:
        with_them |= _images(arrays, images, np.array([one.event for one in chosen], np.int64))
    shown = [
        _shown(one, i, classes[one.code], modes, inputs, with_them) for i, one in enumerate(chosen)
    ]
    counts = zip(classes, rehearsal.n_seen.tolist(), strict=False)
    found = zip(classes, modes.n_modes.tolist(), strict=False)
    return Gallery(
        *names, rehearsal.trusted, rehearsal.recalls, dict(counts), dict(found), tuple(shown)
    )


def _clustered(
    rehearsal: Rehearsal, scale: NDArray[np.float64], *, overlap: bool
) -> tuple[str, list[Representative], Modes]:
    """Micro-clusters, and their modes in the same order."""
    clusters = rehearsal.clusters
    centres = clusters.kept()
    scale = scale[: centres.rows.shape[1]]
    found = find_modes(centres, clusters.variances(), scale, overlap=overlap)
    chosen = [one for code in range(clusters.n_classes) for one in clusters.representatives(code)]
    at = np.searchsorted(centres.slots, [one.slot for one in chosen])
    return CLUSTERS, chosen, Modes(found.mode[at], found.verdict[at], found.n_modes)


def _drawn(rehearsal: Rehearsal) -> tuple[str, list[Representative], Modes]:
    """With nothing but labels all events lie at one place: the uniform sample, and no modes."""
    uniform = rehearsal.uniform
    kept, replayed, nothing = uniform.kept(), uniform.replayed(), np.zeros(0)
    chosen = [
        Representative(
            code=int(kept.codes[i]),
            slot=int(kept.slots[i]),
            centre=nothing,
            count=round(kept.weights[i]),
            member=nothing,
            event=int(kept.event[i]),
            event_time_s=float(kept.event_time_s[i]),
            why=Why.CHANCE,
            replayed=int(replayed[i]),
        )
        for i in range(len(kept.codes))
    ]
    none = np.full(len(chosen), -1, np.int32)
    typical = np.zeros(len(chosen), np.int8)
    return UNIFORM, chosen, Modes(none, typical, np.zeros(uniform.n_classes, np.int32))


def _images(
    arrays: Mapping[str, NDArray[Any]], names: list[str], event: NDArray[np.int64]
) -> dict[str, NDArray[Any]]:
    """(k, IMAGE_SIDE, IMAGE_SIDE) by column, of the events (k,); 0 where there is none."""
    columns = KeptImages.restore(_under(arrays, "images/")).of(event, len(names))
    found = zip(names, columns, strict=True)
    return {name: column.pixels for name, column in found if column is not None}


def _shown(
    one: Representative,
    i: int,
    label: Label,
    modes: Modes,
    inputs: Inputs,
    with_them: Mapping[str, NDArray[Any]],
) -> Shown:
    mode = int(modes.mode[i])
    words = with_them.get(WORDS)
    images = {
        name: values[i]
        for name, values in with_them.items()
        if values.ndim == 3 and values.dtype == np.uint8 and values[i].any()
    }
    return Shown(
        label=label,
        slot=one.slot,
        count=one.count,
        mode=None if mode < 0 else mode,
        verdict=Verdict(int(modes.verdict[i])),
        event=one.event,
        event_time_s=one.event_time_s,
        why=one.why,
        replayed=one.replayed,
        values=_values(one.member, inputs),
        centre={n: x for n, x in _values(one.centre, inputs).items() if not isinstance(x, str)},
        texts={} if words is None else unpacked(words[i]),
        images=images,
    )


def _values(row: NDArray[np.float64], inputs: Inputs) -> dict[str, float | str]:
    """By column: numbers as they are, of a category's inputs the one that is 1."""
    values: dict[str, float | str] = {}
    for one, x in zip(inputs.inputs, row.tolist(), strict=False):
        if one.kind == NUMBER and x == x:
            values[one.column] = x
        elif one.kind in (CATEGORY, OTHER) and x == 1.0:
            values[one.column] = one.value or "(another)"
    return values


def _under(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {k.removeprefix(prefix): a for k, a in arrays.items() if k.startswith(prefix)}
