"""One folder with all that a secured broker of one's own needs, and everybody who talks to it.

| in the folder      | is                                                                         |
|--------------------|----------------------------------------------------------------------------|
| ca.pem, ca-key.pem | the authority: what clients trust, and the key that signs certificates     |
| broker.pem         | the broker's key and certificate, for 127.0.0.1 and localhost              |
| USER.password      | one for root and for each role of roles.toml                               |
| USER.toml          | settings of that user's programs: `streamlearn worker -c DIR/worker.toml`  |
| kafka/             | the broker's data; its users are made when it is formatted                 |

Folder and secrets are open to their owner only. What is there is used, never replaced; only the
settings are written anew, since the broker's port is in them.
"""

import secrets
from collections.abc import Mapping
from pathlib import Path

from streamlearn.config import KafkaConfig
from streamlearn.errors import ConfigError
from streamlearn.runtime import certificates
from streamlearn.runtime.access import roles
from streamlearn.runtime.certificates import Issued
from streamlearn.runtime.keys import write_new
from streamlearn.topics import Topics

ROOT = "root"  # super user, as in deploy/kafka/secure/server.properties
BROKER = "broker"
HOSTS = ("127.0.0.1", "localhost")
MECHANISMS = ("SCRAM-SHA-512", "SCRAM-SHA-256")


class SecureFolder:
    """`prepare` makes what is missing; the rest tells where things are."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.ca_file = self.path / "ca.pem"
        self.broker_file = self.path / "broker.pem"
        self.data_dir = self.path / "kafka"

    def prepare(self) -> None:
        """Certificates and passwords; ConfigError for a folder that cannot be written."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self.ca_file.exists():
                made = certificates.authority("streamlearn")
                write_new(self.path / "ca-key.pem", made.key_pem, mode=0o600)
                write_new(self.ca_file, made.certificate_pem, mode=0o644)
            if not self.broker_file.exists():
                own = certificates.issue(self._authority(), BROKER, hosts=HOSTS)
                write_new(self.broker_file, own.pem, mode=0o600)
            for user in self.users():
                if not self._password_file(user).exists():
                    password = secrets.token_urlsafe(24)
                    write_new(self._password_file(user), f"{password}\n".encode(), mode=0o600)
        except OSError as error:
            raise ConfigError(f"{self.path} cannot hold a secured broker: {error}") from None

    def users(self) -> tuple[str, ...]:
        """root, and a user for each role, under its name."""
        return (ROOT, *roles())

    def client_certificate(self, name: str) -> Path:
        """Key and certificate of one who comes as User:name, without a password."""
        file = self.path / f"{name}.pem"
        if not file.exists():
            issued = certificates.issue(self._authority(), name)
            write_new(file, issued.pem, mode=0o600)
        return file

    def kafka(self, user: str, bootstrap: str) -> KafkaConfig:
        """How `user` reaches the broker."""
        return KafkaConfig(
            bootstrap=bootstrap,
            protocol="SASL_SSL",
            ca_file=self.ca_file,
            username=user,
            password_file=self._password_file(user),
        )

    def write_settings(self, bootstrap: str, topics: Topics) -> None:
        """Each user's settings file. No secrets are in it, only where they are."""
        partitions = topics["events"].partitions
        for user in self.users():
            sections: dict[str, dict[str, object]] = {
                "kafka": self.kafka(user, bootstrap).model_dump(exclude_defaults=True),
                "topics": {"prefix": topics.prefix, "partitions": partitions},
            }
            self.settings_file(user).write_text(_toml(sections), encoding="utf-8")

    def settings_file(self, user: str) -> Path:
        """For -c."""
        return self.path / f"{user}.toml"

    def broker_properties(self) -> dict[str, str]:
        """What deploy/kafka/secure/server.properties leaves open, without ports."""
        return {
            "ssl.keystore.location": str(self.broker_file),
            "ssl.truststore.location": str(self.ca_file),
        }

    def new_users(self) -> str:
        """Arguments of Kafka's format command, one a line, that make the users."""
        lines = []
        for user in self.users():
            password = self._password_file(user).read_text(encoding="utf-8").strip()
            for mechanism in MECHANISMS:
                lines += ["--add-scram", f"{mechanism}=[name={user},password={password}]"]
        return "\n".join(lines) + "\n"

    def _password_file(self, user: str) -> Path:
        return self.path / f"{user}.password"

    def _authority(self) -> Issued:
        try:
            return Issued(self.ca_file.read_bytes(), (self.path / "ca-key.pem").read_bytes())
        except OSError as error:
            raise ConfigError(f"the authority in {self.path} is not complete: {error}") from None


def _toml(sections: Mapping[str, Mapping[str, object]]) -> str:
    lines = ["# written by `streamlearn broker --secure`, anew at each start"]
    for section, keys in sections.items():
        lines += ["", f"[{section}]"]
        for key, value in keys.items():
            text = str(value) if isinstance(value, int) else _quoted(str(value))
            lines.append(f"{key} = {text}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    if "'" in text or "\n" in text:
        raise ConfigError(f"{text!r} has a quote or a line end: choose another folder's name")
    return f"'{text}'"
