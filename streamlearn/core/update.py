"""Stage 8, update: what changed between two models of a stream, and how to follow it.

The learner hands a model over after each frame; the worker publishes diff(last published,
current); a subscriber holds apply(its model, update). Values are absolute, never differences, so
nothing accumulates, and the result's hash proves that both sides hold the same bits.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlearn.core.model import Model, SlowWeights
from streamlearn.errors import GapError, IntegrityError

_INDEX_BYTES = 4  # of an int32 row number
_ENTRY_BYTES = 160  # what a second tensor costs in the header of an update's bytes


@dataclass(frozen=True, slots=True, eq=False)
class Update:
    """Version `base_version` to `version` of one stream's model; base None: a whole model."""

    stream: str
    version: int
    base_version: int | None
    base_hash: str | None
    result_hash: str  # Model.hash after it
    slow_hash: str
    manifest: Mapping[str, Any] | None  # None: unchanged
    changed: Mapping[str, NDArray[Any]]  # whole tensors, new values
    # (k,) rows and their values; where values are (k,), places in the tensor laid flat
    changed_rows: Mapping[str, tuple[NDArray[np.int32], NDArray[Any]]]
    removed: tuple[str, ...] = ()

    @property
    def full(self) -> bool:
        """Whether it needs no base."""
        return self.base_hash is None


def diff(published: Model | None, current: Model) -> Update:
    """What turns `published` (None: nothing) into `current`; arrays are shared, not copied."""
    if published is None:
        return Update(
            stream=current.stream,
            version=current.version,
            base_version=None,
            base_hash=None,
            result_hash=current.hash,
            slow_hash=current.slow.hash,
            manifest=current.manifest,
            changed=dict(current.tensors),
            changed_rows={},
        )
    changed: dict[str, NDArray[Any]] = {}
    changed_rows: dict[str, tuple[NDArray[np.int32], NDArray[Any]]] = {}
    for name, tensor in current.tensors.items():
        before = published.tensors.get(name)
        if before is None or before.shape != tensor.shape or before.dtype != tensor.dtype:
            changed[name] = tensor
            continue
        if before is tensor:
            continue
        if tensor.nbytes <= _ENTRY_BYTES:  # whole, or not at all
            if before.tobytes() != tensor.tobytes():
                changed[name] = tensor
            continue
        differs = _differs(before, tensor)
        n_differ = int(np.count_nonzero(differs))
        if n_differ == 0:
            continue
        rows = np.flatnonzero(differs.any(axis=1)).astype(np.int32)
        row_bytes = len(rows) * (_INDEX_BYTES + tensor.nbytes // len(differs))
        place_bytes = n_differ * (_INDEX_BYTES + tensor.itemsize)
        if tensor.ndim == 0 or min(row_bytes, place_bytes) + _ENTRY_BYTES >= tensor.nbytes:
            changed[name] = tensor
        elif row_bytes <= place_bytes:
            changed_rows[name] = (rows, tensor[rows])
        else:
            places = np.flatnonzero(differs).astype(np.int32)
            changed_rows[name] = (places, tensor.reshape(-1)[places])
    same_manifest = published.manifest is current.manifest or (
        _canonical(published.manifest) == _canonical(current.manifest)
    )
    return Update(
        stream=current.stream,
        version=current.version,
        base_version=published.version,
        base_hash=published.hash,
        result_hash=current.hash,
        slow_hash=current.slow.hash,
        manifest=None if same_manifest else current.manifest,
        changed=changed,
        changed_rows=changed_rows,
        removed=tuple(name for name in published.tensors if name not in current.tensors),
    )


def apply(base: Model | None, update: Update, slow: SlowWeights) -> Model:
    """The model that `update` leads to, in arrays shared with both of them, read-only.

    GapError: `base` or `slow` are not the ones it was made against. IntegrityError: the result
    is not what its hash says. `base` is left as it is, and not looked at by a full update.
    """
    if slow.hash != update.slow_hash:
        raise GapError(
            f"update {update.stream!r} version {update.version} needs slow weights "
            f"{update.slow_hash[:12]}, not {slow.hash[:12]}; read the slow topic"
        )
    if update.full:
        tensors: dict[str, NDArray[Any]] = {}
        manifest = update.manifest
    else:
        base = _checked_base(base, update)
        tensors = dict(base.tensors)
        manifest = base.manifest if update.manifest is None else update.manifest
    if manifest is None:
        raise IntegrityError(f"{_named(update)} is a whole model without a manifest")
    for name in update.removed:
        tensors.pop(name, None)
    tensors.update(update.changed)
    for name, (rows, values) in update.changed_rows.items():
        tensors[name] = _with_rows(update, name, tensors.get(name), rows, values)
    model = Model(update.stream, update.version, manifest, tensors, slow)
    if model.hash != update.result_hash:
        raise IntegrityError(
            f"{_named(update)} leads to a model with hash {model.hash[:12]}, not "
            f"{update.result_hash[:12]}; fetch the snapshot"
        )
    return model


def _differs(before: NDArray[Any], after: NDArray[Any]) -> NDArray[np.bool_]:
    """(rows, elements of a row) whose bits differ; a tensor without axes is one row."""
    n_rows = after.shape[0] if after.ndim else 1
    if after.nbytes == 0:
        return np.zeros((n_rows, 0), np.bool_)
    bits = f"u{after.itemsize}"  # as integers: NaN equals itself, -0.0 is not 0.0
    old = np.ascontiguousarray(before).view(bits).reshape(n_rows, -1)
    new = np.ascontiguousarray(after).view(bits).reshape(n_rows, -1)
    differs: NDArray[np.bool_] = old != new
    return differs


def _checked_base(base: Model | None, update: Update) -> Model:
    if base is None:
        raise GapError(
            f"{_named(update)} changes version {update.base_version}, but there is no model yet; "
            "fetch the snapshot"
        )
    if base.stream != update.stream:
        raise IntegrityError(f"{_named(update)} is not for stream {base.stream!r}")
    if base.hash != update.base_hash:  # which covers the version
        raise GapError(
            f"{_named(update)} changes version {update.base_version} "
            f"({str(update.base_hash)[:12]}), not version {base.version} ({base.hash[:12]}); "
            "fetch the snapshot"
        )
    return base


def _with_rows(
    update: Update,
    name: str,
    tensor: NDArray[Any] | None,
    rows: NDArray[np.int32],
    values: NDArray[Any],
) -> NDArray[Any]:
    laid_flat = tensor is not None and tensor.ndim > 1 and values.ndim == 1
    target = tensor.reshape(-1) if tensor is not None and laid_flat else tensor
    fits = (
        target is not None
        and target.ndim > 0
        and rows.ndim == 1
        and rows.dtype == np.int32
        and values.dtype == target.dtype
        and values.shape == (len(rows), *target.shape[1:])
        and (len(rows) == 0 or (rows.min() >= 0 and rows.max() < len(target)))
    )
    if tensor is None or target is None or not fits:
        raise IntegrityError(
            f"{_named(update)} changes rows of {name!r} that its base doesn't have; "
            "fetch the snapshot"
        )
    changed = target.copy()
    changed[rows] = values
    return changed.reshape(tensor.shape)


def _canonical(manifest: Mapping[str, Any]) -> str:
    return json.dumps(manifest, sort_keys=True, separators=(",", ":"))


def _named(update: Update) -> str:
    return f"update {update.stream!r} version {update.version}"
