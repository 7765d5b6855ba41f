"""A whole model, its slow weights included, as one safetensors file that stands for itself.

Tensors `model/NAME` and `slow/NAME`; metadata {"format": 1, "stream", "version", "hash",
"slow_hash", "manifest": {...}, "about": {...}}: `about` says where it came from and is not part of
the hash. Reading checks both hashes. FormatError and IntegrityError are all that it raises.
"""

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from streamlearn.core.model import Model, SlowWeights
from streamlearn.errors import FormatError, IntegrityError
from streamlearn.wire import tensors as tensor_bytes
from streamlearn.wire.envelope import MAX_STATE_BYTES

FORMAT = 1
_MODEL, _SLOW = "model/", "slow/"


def encode(model: Model, about: Mapping[str, Any]) -> bytes:
    """The file's bytes; `about` is JSON-able."""
    tensors: dict[str, NDArray[Any]] = {_MODEL + n: t for n, t in model.tensors.items()}
    tensors |= {_SLOW + name: tensor for name, tensor in model.slow.tensors.items()}
    meta = {
        "format": FORMAT,
        "stream": model.stream,
        "version": model.version,
        "hash": model.hash,
        "slow_hash": model.slow.hash,
        "manifest": dict(model.manifest),
        "about": dict(about),
    }
    return tensor_bytes.pack(tensors, meta, max_bytes=MAX_STATE_BYTES)


def decode(raw: bytes) -> tuple[Model, dict[str, Any]]:
    """The model, ready to predict, and what the file says about itself."""
    tensors, meta = tensor_bytes.unpack(raw)
    if meta.get("format") != FORMAT:
        raise FormatError(
            f"a model file of format {meta.get('format')!r}, and this program reads {FORMAT}; "
            "`streamlearn replay` writes it"
        )
    try:
        slow = SlowWeights({n[len(_SLOW) :]: t for n, t in tensors.items() if n.startswith(_SLOW)})
        own = {n[len(_MODEL) :]: t for n, t in tensors.items() if n.startswith(_MODEL)}
        model = Model(str(meta["stream"]), int(meta["version"]), meta["manifest"], own, slow)
        claimed = meta["slow_hash"], meta["hash"]
        found = slow.hash, model.hash
        about = dict(meta["about"])
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"the model file is not whole: {error!r}") from error
    if found != claimed:
        raise IntegrityError(
            f"the file says that it holds model {str(claimed[1])[:12]}, but it holds "
            f"{found[1][:12]}; write it again with `streamlearn replay`"
        )
    return model, about
