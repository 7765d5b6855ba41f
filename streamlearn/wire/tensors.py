"""Tensors and JSON metadata to one byte string and back: safetensors, zstd when smaller.

safetensors: 8 bytes little-endian header size, JSON header {name: {dtype, shape, data_offsets}},
the tensors' bytes. Our own metadata is one JSON text under __metadata__ / "streamlearn". Refused,
before anything is allocated for it: a compressed size, an inflated size or a header over its
bound; a zstd frame that does not declare exactly the inflated size that the message names; zstd
windows over 8 MiB; by safetensors itself, shapes and offsets that do not cover the bytes exactly.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
import zstandard
from numpy.typing import NDArray

from streamlearn.errors import FormatError, SizeError

MAX_RAW_BYTES = 64 * 1024 * 1024  # inflated, tensors and header
MAX_HEADER_BYTES = 8 * 1024 * 1024
MAX_NDIM = 8
_MAX_WINDOW = 8 * 1024 * 1024
_META = "streamlearn"
_FIRST = '{"__metadata__":'

_DTYPES = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype("<u1"),
    "I8": np.dtype("<i1"),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "F16": np.dtype("<f2"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "F32": np.dtype("<f4"),
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F64": np.dtype("<f8"),
}
_NAMES = {dtype: dtype.name for dtype in _DTYPES.values()}


def pack(
    tensors: Mapping[str, NDArray[Any]], meta: Mapping[str, Any], *, max_bytes: int = MAX_RAW_BYTES
) -> bytes:
    """One safetensors byte string; the same tensors and meta give the same bytes."""
    dense = {  # safetensors writes memory as it lies; order="C" keeps arrays without axes
        name: np.asarray(tensor, order="C") for name, tensor in tensors.items()
    }
    specs = {name: _spec(name, tensor) for name, tensor in dense.items()}
    text = json.dumps(meta, separators=(",", ":"))  # keeps the order of its keys
    raw = bytes(safetensors.serialize(specs, metadata={_META: text}))
    if len(raw) > max_bytes:
        raise FormatError(f"{len(raw)} > {max_bytes} bytes of tensors in one message")
    return raw


def _spec(name: str, tensor: NDArray[Any]) -> safetensors.TensorSpec:
    """What `safetensors.numpy.save` makes of a tensor, without asking NumPy for its names."""
    dtype = _NAMES.get(tensor.dtype)
    if dtype is None or tensor.ndim > MAX_NDIM:
        raise FormatError(
            f"tensor {name!r} is {tensor.dtype} with {tensor.ndim} axes; little-endian bool, "
            f"int, uint or float with at most {MAX_NDIM} axes can be sent"
        )
    address = tensor.__array_interface__["data"][0]
    return safetensors.TensorSpec(
        dtype=dtype, shape=tensor.shape, data_ptr=address, data_len=tensor.nbytes
    )


def unpack(raw: bytes) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Fresh, aligned, read-only arrays and the metadata; FormatError for anything not from pack."""
    header_size = int.from_bytes(raw[:8], "little")
    if len(raw) < 8 or header_size > min(MAX_HEADER_BYTES, len(raw) - 8):
        raise FormatError(
            f"safetensors header of {header_size} bytes; {len(raw)} bytes are here, and at most "
            f"{MAX_HEADER_BYTES} are read"
        )
    try:
        entries: list[tuple[str, dict[str, Any]]] = safetensors.deserialize(raw)  # type: ignore[no-untyped-call]
        meta = json.loads(_metadata(raw[8 : 8 + header_size].decode())[_META])
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise FormatError(f"no safetensors of ours: {str(error)[:200]}") from error
    if not isinstance(meta, dict):
        raise FormatError("the metadata is no JSON object")
    return {name: _array(name, entry) for name, entry in entries}, meta


def _metadata(header: str) -> Any:
    """What safetensors writes first, so that the rest, which it has checked, need not be read."""
    if header.startswith(_FIRST):
        return json.JSONDecoder().raw_decode(header, len(_FIRST))[0]
    return json.loads(header)["__metadata__"]


def _array(name: str, entry: Mapping[str, Any]) -> NDArray[Any]:
    dtype, shape = _DTYPES.get(entry["dtype"]), entry["shape"]
    if dtype is None or len(shape) > MAX_NDIM:
        raise FormatError(
            f"tensor {name[:80]!r} is {entry['dtype']} with {len(shape)} axes; not a dtype or "
            "shape of this format"
        )
    try:
        tensor = np.frombuffer(entry["data"], dtype).reshape(shape)
    except ValueError as error:  # an axis of 2^63 beside one of 0
        raise FormatError(f"tensor {name[:80]!r} has an impossible shape: {error}") from error
    tensor.flags.writeable = False
    return tensor


def compress(raw: bytes, *, level: int = 1) -> tuple[bytes, str]:
    """(bytes, "zstd") where that is smaller, else (raw, "none")."""
    packed = zstandard.ZstdCompressor(level=level).compress(raw)
    return (packed, "zstd") if len(packed) < len(raw) else (raw, "none")


def decompress(
    packed: bytes, compression: str, raw_size: int, *, max_bytes: int = MAX_RAW_BYTES
) -> bytes:
    """Exactly raw_size bytes; FormatError where they are not, checked before they are made."""
    if not 0 <= raw_size <= max_bytes:
        raise SizeError(f"inflated size {raw_size}; at most {max_bytes} bytes are accepted")
    if compression == "none":
        if len(packed) != raw_size:
            raise FormatError(f"{len(packed)} bytes, but {raw_size} were announced")
        return packed
    if compression != "zstd":
        raise FormatError(f"compression {compression[:20]!r}; this version knows zstd and none")
    try:
        declared = zstandard.get_frame_parameters(packed)
        if declared.content_size != raw_size or declared.window_size > _MAX_WINDOW:
            raise SizeError(
                f"a zstd frame of {declared.content_size} bytes (window {declared.window_size}), "
                f"but {raw_size} were announced"
            )
        codec = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
        raw = codec.decompress(packed, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise FormatError(f"no zstd frame: {error}") from error
    if len(raw) != raw_size:
        raise FormatError(f"{len(raw)} bytes inflated, but {raw_size} were announced")
    return raw
