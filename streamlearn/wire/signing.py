"""Ed25519 keys: who may write what subscribers believe.

A Signer holds the private key (the worker), a Verifier one or more public ones (subscribers; two
while a key is being replaced). What is signed is made in `envelope`: all headers, the Kafka key,
and the value's hash. The scope, for example a topic prefix, is signed along and not sent: with
one key for two deployments, messages of the one are refused by the other.
"""

import hashlib
from collections.abc import Iterable

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from streamlearn.errors import ConfigError, ForeignError

_DOMAIN = b"streamlearn signature 1\0"


def generate_keys() -> tuple[bytes, bytes]:
    """A new (private, public) pair as PEM: PKCS#8, unencrypted, and SubjectPublicKeyInfo."""
    private = Ed25519PrivateKey.generate()
    return (
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        _public_pem(private.public_key()),
    )


class Signer:
    """Signs digests. Ed25519 is deterministic: the same message gets the same signature."""

    def __init__(self, private_pem: bytes, *, scope: str = "") -> None:
        self._key = _private_key(private_pem)
        self._scope = scope.encode()
        self.key_id = _key_id(self._key.public_key())

    def sign(self, digest: bytes) -> bytes:
        """64 bytes over scope and digest."""
        return self._key.sign(_signed_text(self._scope, digest))


def public_half(private_pem: bytes) -> bytes:
    """The public PEM that belongs to a private one."""
    return _public_pem(_private_key(private_pem).public_key())


def key_id(pem: bytes) -> str:
    """16 hex digits that name a pair, from either of its PEMs; it stands in what was signed."""
    if b"PRIVATE KEY" in pem:
        return _key_id(_private_key(pem).public_key())
    return _key_id(_public_key(pem))


class Verifier:
    """Accepts what any of its public keys' owners signed."""

    def __init__(self, public_pems: bytes | Iterable[bytes], *, scope: str = "") -> None:
        pems = [public_pems] if isinstance(public_pems, bytes) else list(public_pems)
        if not pems:
            raise ConfigError("a verifier needs at least one public key")
        keys = [_public_key(pem) for pem in pems]
        self._keys = {_key_id(key): key for key in keys}
        self._scope = scope.encode()

    def check(self, digest: bytes, key_id: str | None, signature: bytes | None) -> None:
        """ForeignError unless `signature` was made over `digest` by the key named `key_id`."""
        if key_id is None or signature is None:
            raise ForeignError(
                "the message is not signed, and a public key is set; have the worker sign, or "
                "drop the key"
            )
        key = self._keys.get(key_id)
        if key is None:
            known = ", ".join(self._keys)
            raise ForeignError(f"signed with unknown key {key_id[:16]!r}; known: {known}")
        try:
            key.verify(signature, _signed_text(self._scope, digest))
        except InvalidSignature as error:
            raise ForeignError(
                f"the signature of key {key_id} does not fit the message, its key or this scope"
            ) from error


def _private_key(pem: bytes) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigError(
            "the signing key is no unencrypted PEM private key; `streamlearn keys new` makes one"
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError("the signing key is not an Ed25519 key; use `streamlearn keys new`")
    return key


def _public_key(pem: bytes) -> Ed25519PublicKey:
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(
            "a verification key is no PEM public key; `streamlearn keys show` tells what a file is"
        ) from None
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError("a verification key is not an Ed25519 key; use `streamlearn keys new`")
    return key


def _public_pem(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _key_id(key: Ed25519PublicKey) -> str:
    return hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:16]


def _signed_text(scope: bytes, digest: bytes) -> bytes:
    return _DOMAIN + len(scope).to_bytes(4, "little") + scope + digest
