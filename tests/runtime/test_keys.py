"""Key files."""

import os
import stat
from pathlib import Path

import pytest

from streamlearn.errors import ConfigError, ForeignError, InputError
from streamlearn.runtime import keys
from streamlearn.wire.signing import generate_keys


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_pair_fits_and_only_its_owner_reads_the_secret(tmp_path: Path) -> None:
    mask = os.umask(0)  # the mode does not hang on the umask
    try:
        private, public = keys.new_pair(tmp_path / "deep" / "keys")
    finally:
        os.umask(mask)
    assert (mode(private), mode(public)) == (0o600, 0o644)
    signer, verifier = keys.signer(private, prefix="a."), keys.verifier(public, prefix="a.")
    assert signer is not None and verifier is not None
    verifier.check(b"digest", signer.key_id, signer.sign(b"digest"))
    elsewhere = keys.verifier(public.read_bytes(), prefix="b.")
    assert elsewhere is not None
    with pytest.raises(ForeignError, match="scope"):
        elsewhere.check(b"digest", signer.key_id, signer.sign(b"digest"))


@pytest.mark.parametrize("there", [keys.PRIVATE_FILE, keys.PUBLIC_FILE])
def test_a_key_is_never_replaced(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("mine")
    with pytest.raises(InputError, match=f"{there} is there already"):
        keys.new_pair(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "mine"


def test_without_keys_nothing_is_signed_or_checked() -> None:
    assert keys.signer(None, prefix="") is None
    assert keys.verifier((), prefix="") is None


def test_both_halves_have_the_pairs_id(tmp_path: Path) -> None:
    private, public = (keys.look_at(path) for path in keys.new_pair(tmp_path))
    assert (private.private, public.private) == (True, False)
    assert private.key_id == public.key_id
    assert private.public_pem == public.public_pem == public.path.read_text()


def test_a_wrong_file_is_named(tmp_path: Path) -> None:
    private, public = keys.new_pair(tmp_path)
    (tmp_path / "junk").write_text("junk")
    with pytest.raises(ConfigError, match=r"worker\.signing_key .*public_key.pem: .*keys new"):
        keys.signer(public, prefix="")
    with pytest.raises(ConfigError, match=r"signing_key.pem: .*no PEM public key"):
        keys.verifier([public, str(private)], prefix="")
    with pytest.raises(ConfigError, match="none cannot be read: No such file"):
        keys.verifier(tmp_path / "none", prefix="")
    with pytest.raises(ConfigError, match="no PEM public key"):
        keys.look_at(tmp_path / "junk")


def test_a_secret_that_others_can_read_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    private, _ = keys.new_pair(tmp_path)
    keys.signer(private, prefix="")
    assert not caplog.messages and not keys.look_at(private).open_to_others
    private.chmod(0o640)
    keys.signer(private, prefix="")
    assert "chmod 600" in caplog.text and keys.look_at(private).open_to_others


def test_a_pair_is_new_each_time() -> None:
    assert generate_keys() != generate_keys()
