"""Key files: a new pair, the worker's signing key, subscribers' public keys.

`wire.signing` knows keys as PEM bytes; here they are files. The topics' prefix is signed along, so
messages of one installation are foreign to another one, though both use the same pair.
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from streamlearn.errors import ConfigError, InputError
from streamlearn.runtime.logs import OURS
from streamlearn.wire import signing
from streamlearn.wire.signing import Signer, Verifier

PRIVATE_FILE = "signing_key.pem"
PUBLIC_FILE = "public_key.pem"

PublicKey: TypeAlias = Path | str | bytes  # a PEM file, or what is in it

log = logging.getLogger(OURS)


@dataclass(frozen=True, slots=True)
class KeyFile:
    """What a key file is."""

    path: Path
    private: bool
    key_id: str
    public_pem: str
    open_to_others: bool  # a private file that others than its owner may read


def new_pair(folder: Path) -> tuple[Path, Path]:
    """Make a private (mode 0600) and a public file; InputError rather than replace one."""
    private, public = signing.generate_keys()
    places = folder / PRIVATE_FILE, folder / PUBLIC_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for place in places:
            if place.exists():
                raise FileExistsError(0, "it exists already", str(place))
        write_new(places[0], private, mode=0o600)
        write_new(places[1], public, mode=0o644)
    except FileExistsError as error:
        raise InputError(
            f"{error.filename} is there already and a key is never replaced; choose another folder"
        ) from None
    except OSError as error:
        raise InputError(f"no keys can be written to {folder}: {error.strerror}") from None
    return places


def write_new(path: Path, content: bytes, *, mode: int) -> None:
    """A file that was not there before, never open to more than `mode`; else FileExistsError."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)


def look_at(path: Path) -> KeyFile:
    """What kind of key a file holds; ConfigError if none of ours."""
    pem = _read(path, "key")
    private = b"PRIVATE KEY" in pem
    try:
        public_pem, key_id = signing.public_half(pem) if private else pem, signing.key_id(pem)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    open_to_others = private and bool(path.stat().st_mode & 0o077)
    return KeyFile(path, private, key_id, public_pem.decode(), open_to_others)


def signer(path: Path | None, *, prefix: str) -> Signer | None:
    """The worker's: from worker.signing_key, None where that is not set."""
    if path is None:
        return None
    pem = _read(path, "worker.signing_key")
    if path.stat().st_mode & 0o077:
        log.warning("%s can be read by others than its owner; chmod 600 it", path)
    try:
        return Signer(pem, scope=prefix)
    except ConfigError as error:
        raise ConfigError(f"worker.signing_key {path}: {error}") from None


def trusted(
    signing_key: Path | None, public_keys: Sequence[PublicKey], *, prefix: str
) -> Verifier | None:
    """Who may roll streams back: the signing key's owner and these keys'; None without keys."""
    own = [] if signing_key is None else [signing.public_half(_read(signing_key, "signing key"))]
    return verifier([*own, *public_keys], prefix=prefix)


def verifier(keys: PublicKey | Sequence[PublicKey], *, prefix: str) -> Verifier | None:
    """A subscriber's: accepts what any of these keys' owners signed; None without keys."""
    given = [keys] if isinstance(keys, PublicKey) else list(keys)
    if not given:
        return None
    return Verifier([_public_pem(key) for key in given], scope=prefix)


def _public_pem(key: PublicKey) -> bytes:
    if isinstance(key, bytes):
        return key
    pem = _read(Path(key), "public key")
    try:
        Verifier(pem)
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from None
    return pem


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{what} {path} cannot be read: {error.strerror}") from None
