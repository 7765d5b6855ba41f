"""The folder of a secured broker, without a broker: files, modes, certificates that hold."""

import os
import socket
import ssl
import stat
import threading
from pathlib import Path

import pytest

from streamlearn import config
from streamlearn import topics as topic_specs
from streamlearn.errors import ConfigError
from streamlearn.runtime import certificates
from streamlearn.runtime.secure_folder import MECHANISMS, SecureFolder

TOPICS = topic_specs.load(prefix="p.", partitions=3)


@pytest.fixture
def folder(tmp_path: Path) -> SecureFolder:
    made = SecureFolder(tmp_path / "deep" / "secure")
    made.prepare()
    return made


def content(folder: SecureFolder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.path.iterdir()}


def test_only_the_owner_reads_secrets(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        folder = SecureFolder(tmp_path / "secure")
        folder.prepare()
        folder.client_certificate("feeder")
    finally:
        os.umask(mask)
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    open_ones = {p.name for p in folder.path.iterdir() if p.stat().st_mode & 0o077}
    assert open_ones == {"ca.pem"}


def test_what_is_there_is_never_replaced(folder: SecureFolder) -> None:
    before = content(folder)
    folder.prepare()
    assert content(folder) == before
    (folder.path / "feeder.password").unlink()
    folder.prepare()
    after = content(folder)
    assert after.pop("feeder.password") != before.pop("feeder.password")
    assert after == before
    assert len({before[name] for name in before if name.endswith(".password")}) == 6


def test_an_authority_without_its_key_is_said(folder: SecureFolder) -> None:
    (folder.path / "ca-key.pem").unlink()
    with pytest.raises(ConfigError, match=r"authority in .* is not complete"):
        folder.client_certificate("feeder")


def test_settings_files_are_settings(folder: SecureFolder) -> None:
    folder.write_settings("127.0.0.1:1234", TOPICS)
    for user in folder.users():
        read = config.load({}, folder.settings_file(user))
        assert read.kafka == folder.kafka(user, "127.0.0.1:1234")
        assert (read.topics.prefix, read.topics.partitions) == ("p.", 3)
        assert read.kafka.secret() not in folder.settings_file(user).read_text()
        assert len(read.kafka.secret()) >= 32


def test_a_folder_that_no_settings_file_can_name_is_refused(tmp_path: Path) -> None:
    folder = SecureFolder(tmp_path / "it's")
    folder.prepare()
    with pytest.raises(ConfigError, match="choose another folder"):
        folder.write_settings("127.0.0.1:1234", TOPICS)


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot hold a secured broker"):
        SecureFolder(tmp_path / "file" / "secure").prepare()


def test_every_user_is_made_for_every_mechanism(folder: SecureFolder) -> None:
    lines = folder.new_users().splitlines()
    assert lines[::2] == ["--add-scram"] * (len(lines) // 2)
    made = {line.partition(",password")[0] for line in lines[1::2]}
    users = ("root", "feeder", "worker", "subscriber", "watcher", "auditor", "admin")
    assert made == {f"{mechanism}=[name={user}" for mechanism in MECHANISMS for user in users}


# --- certificates ------------------------------------------------------------------------------


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, host: str) -> dict[str, object]:
    """Both ends of a TLS connection in this process; what the server learns of the client."""
    ours, theirs = socket.socketpair()
    learned: dict[str, object] = {}

    def serve() -> None:
        try:
            with server.wrap_socket(ours, server_side=True) as end:
                learned.update(end.getpeercert() or {})
                end.send(b"x")
        except OSError as error:
            learned["error"] = error

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(theirs, server_hostname=host) as end:
            assert end.recv(1) == b"x"
    finally:
        thread.join()
        ours.close()
        theirs.close()
    return learned


def server_context(folder: SecureFolder) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=folder.ca_file)
    context.load_cert_chain(folder.broker_file)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(folder: SecureFolder, certificate: Path) -> ssl.SSLContext:
    kafka = config.KafkaConfig(protocol="SSL", ca_file=folder.ca_file, cert_file=certificate)
    context = kafka.tls()
    assert context is not None
    return context


def test_both_sides_are_who_they_say(folder: SecureFolder) -> None:
    client = client_context(folder, folder.client_certificate("feeder"))
    for host in ("127.0.0.1", "localhost"):
        learned = shake_hands(server_context(folder), client, host)
        assert learned["subject"] == ((("commonName", "feeder"),),)


def test_another_host_or_another_authority_is_not_believed(
    folder: SecureFolder, tmp_path: Path
) -> None:
    client = client_context(folder, folder.client_certificate("feeder"))
    with pytest.raises(ssl.SSLCertVerificationError, match="not valid for"):
        shake_hands(server_context(folder), client, "example.org")
    stranger = SecureFolder(tmp_path / "stranger")
    stranger.prepare()
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(server_context(stranger), client, "localhost")
    foreign = client_context(folder, stranger.client_certificate("broker"))
    with pytest.raises((ssl.SSLError, ConnectionError)):
        shake_hands(server_context(folder), foreign, "localhost")


def test_what_an_authority_signed_signs_nothing(tmp_path: Path) -> None:
    authority = certificates.authority("a")
    middle = certificates.issue(authority, "middle")
    leaf = certificates.issue(middle, "localhost", hosts=["localhost"])
    files = {"ca": authority.certificate_pem, "leaf": leaf.pem + middle.certificate_pem}
    for name, pem in files.items():
        (tmp_path / name).write_bytes(pem)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(tmp_path / "leaf")
    client = ssl.create_default_context(cafile=tmp_path / "ca")
    with pytest.raises(ssl.SSLCertVerificationError, match="invalid CA"):
        shake_hands(server, client, "localhost")


@pytest.mark.parametrize("pem", [b"", b"junk"])
def test_a_broken_authority_is_said(pem: bytes) -> None:
    made = certificates.authority("a")
    with pytest.raises(ConfigError, match="no PEM key and certificate"):
        certificates.issue(certificates.Issued(pem, made.key_pem), "x")
