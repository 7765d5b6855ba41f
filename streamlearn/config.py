"""Settings: environment and file in, one frozen Config out. Nothing else reads the environment.

`STREAMLEARN_WORKER__GROUP=night` is `group` in the section `[worker]` of a TOML file;
`STREAMLEARN_BOOTSTRAP` is short for `STREAMLEARN_KAFKA__BOOTSTRAP`. Flags win over the
environment, the environment over the file, the file over the defaults below.
"""

import ssl
import tomllib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from streamlearn.core.settings import LearnerSettings
from streamlearn.errors import ConfigError

PREFIX = "STREAMLEARN_"
SHORT = {"BOOTSTRAP": "KAFKA__BOOTSTRAP"}
NOT_SETTINGS = {"DEBUG"}  # read by the command line itself

Port = Annotated[int, Field(ge=0, le=65535)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class KafkaConfig(_Section):
    """How every client reaches the broker. Its password is shown nowhere, errors included."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    bootstrap: str = Field("localhost:9092", min_length=1)
    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    ca_file: Path | None = None  # PEM; None: the authorities that this machine trusts
    cert_file: Path | None = None  # PEM; for brokers that ask clients for a certificate
    key_file: Path | None = None  # PEM, not encrypted; None: it stands in cert_file
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    username: str | None = None
    password: SecretStr | None = None
    password_file: Path | None = None  # its first line is the password

    @model_validator(mode="after")
    def _says_who_it_is(self) -> Self:
        if self.password is not None and self.password_file is not None:
            raise ValueError("password and password_file are both given; leave one of them out")
        given = self.password is not None or self.password_file is not None
        if self.protocol.startswith("SASL_") and not (self.username and given):
            raise ValueError(
                f"protocol {self.protocol} needs username, and password or password_file"
            )
        return self

    def secret(self) -> str:
        """The password, from wherever it is. ConfigError if its file cannot be read."""
        if self.password_file is None:
            return self.password.get_secret_value() if self.password is not None else ""
        try:
            return self.password_file.read_text(encoding="utf-8").partition("\n")[0].rstrip("\r")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"kafka.password_file {self.password_file} cannot be read: {error}"
            ) from None

    def tls(self) -> ssl.SSLContext | None:
        """For clients that are no librdkafka; None without TLS. ConfigError for unusable files."""
        if not self.protocol.endswith("SSL"):
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:  # ssl.SSLError is one
            raise ConfigError(
                f"kafka.ca_file {self.ca_file} is no PEM file of certificates: {error}"
            ) from None
        if self.cert_file is not None:
            try:
                context.load_cert_chain(self.cert_file, self.key_file, password=_refuse)
            except OSError as error:
                raise ConfigError(
                    f"kafka.cert_file {self.cert_file} and key_file "
                    f"{self.key_file or self.cert_file} are no certificate with its key, not "
                    f"encrypted: {error}"
                ) from None
        return context

    def client_settings(self) -> dict[str, str | int | float | bool]:
        """librdkafka's settings for any confluent_kafka client. ConfigError for unusable files.

        >>> KafkaConfig(bootstrap="host:9092").client_settings()
        {'bootstrap.servers': 'host:9092'}
        """
        settings: dict[str, str | int | float | bool] = {"bootstrap.servers": self.bootstrap}
        if self.protocol != "PLAINTEXT":
            settings["security.protocol"] = self.protocol
        if self.tls() is not None:  # librdkafka says less about what is wrong with a file
            if self.ca_file is not None:
                settings["ssl.ca.location"] = str(self.ca_file)
            if self.cert_file is not None:
                settings["ssl.certificate.location"] = str(self.cert_file)
                settings["ssl.key.location"] = str(self.key_file or self.cert_file)
        if self.protocol.startswith("SASL_"):
            settings["sasl.mechanism"] = self.sasl_mechanism
            settings["sasl.username"] = self.username or ""
            settings["sasl.password"] = self.secret()
        return settings


def _refuse() -> str:
    raise OSError("the key is encrypted")


class TopicsConfig(_Section):
    """Names and sizes of the topics."""

    prefix: str = Field("streamlearn.", pattern=r"^[A-Za-z0-9._-]*$")
    partitions: int = Field(4, ge=1, le=10_000)  # of events, updates, snapshots, state, ...
    replication: int = Field(-1, ge=-1, le=15)  # -1: the broker's default


class WorkerConfig(_Section):
    """One learning process."""

    group: str = Field("streamlearn", min_length=1)  # workers of one group share the partitions
    state_dir: Path = Path("state")
    instance: str | None = None  # a name of its own: restarted, it goes on without a rebalance
    metrics_host: str = "127.0.0.1"  # 0.0.0.0: reachable from other machines
    metrics_port: Port = 9464  # 0: any free one
    checkpoint_interval_s: float = Field(5.0, gt=0)
    checkpoint_mib_per_s: float = Field(64.0, gt=0)  # that checkpoints write at most, over time
    stall_deadline_s: float = Field(60.0, gt=0)  # without progress while events wait: it ends
    predictions: bool = False  # publish each event's prediction
    late_labels: bool = False  # pass labels that come later than their events on to them
    label_requests: int = Field(0, ge=0, le=100)  # of each 100 events, how many to ask labels for
    signing_key: Path | None = None  # `streamlearn keys new` makes it
    memory_budget_mib: int = Field(1024, ge=64)  # for the streams that are kept in memory


class SubscriberConfig(_Section):
    """Whose models are believed."""

    public_keys: tuple[Path, ...] = ()  # with any, what isn't signed with one of them is refused


class FeederConfig(_Section):
    """How events are put into frames."""

    frame_events: int = Field(256, ge=1, le=4096)
    linger_ms: float = Field(50.0, ge=0)


class BrokerConfig(_Section):
    """The local broker of `streamlearn broker`, demo and tests."""

    cache_dir: Path = Path("~/.cache/streamlearn")  # Kafka's jars; XDG_CACHE_HOME moves it
    heap: str = Field("512m", pattern=r"^\d+[mg]$")


class Config(_Section):
    """All settings of one process. `load` makes it."""

    kafka: KafkaConfig = KafkaConfig()
    topics: TopicsConfig = TopicsConfig()
    learner: LearnerSettings = LearnerSettings()
    worker: WorkerConfig = WorkerConfig()
    feeder: FeederConfig = FeederConfig()
    subscriber: SubscriberConfig = SubscriberConfig()
    broker: BrokerConfig = BrokerConfig()


def load(
    env: Mapping[str, str],
    file: Path | None = None,
    flags: Mapping[str, object] | None = None,
) -> Config:
    """Settings from a TOML file, then `env`, then `flags` ({"worker.group": "night"}).

    A flag that is None was not given. Raises ConfigError that names the setting, its value and
    what would be right; for an unknown name also the nearest known one.

    >>> load({"STREAMLEARN_BOOTSTRAP": "host:9092"}).kafka.bootstrap
    'host:9092'
    >>> load({"STREAMLEARN_WORKER__GRUOP": "night"})
    Traceback (most recent call last):
    streamlearn.errors.ConfigError: STREAMLEARN_WORKER__GRUOP is no setting; did you mean \
STREAMLEARN_WORKER__GROUP?
    """
    raw: dict[str, dict[str, Any]] = {}
    source: dict[str, str] = {}  # "worker.group" to where it was given, for messages
    if cache := env.get("XDG_CACHE_HOME"):
        raw["broker"] = {"cache_dir": str(Path(cache) / "streamlearn")}
    given = [*_from_file(file), *_from_env(env)]
    given += [(name, value, f"flag for {name}") for name, value in (flags or {}).items()]
    for name, value, origin in given:
        if value is not None:
            section, key = name.split(".")
            raw.setdefault(section, {})[key] = value
            source[name] = origin
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"][:2])
        secret = name.endswith("password") or name == "kafka"  # the section holds the password
        shown = "" if secret else f", got {first['input']!r}"
        said = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{source.get(name, name)}: {said}{shown}") from None


def _from_file(file: Path | None) -> list[tuple[str, Any, str]]:
    if file is None:
        return []
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"settings file {file} cannot be read: {error.strerror}; check the path given with -c"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"settings file {file} is no TOML: {error}") from None
    given = []
    for section, keys in content.items():
        if not isinstance(keys, dict):
            raise ConfigError(f"{file}: {section!r} must stand in a [section], as in [worker]")
        for key, value in keys.items():
            name = f"{section}.{key}"
            if name not in settings():
                raise ConfigError(f"[{section}] {key} in {file} is no setting{_nearest(name)}")
            given.append((name, value, f"[{section}] {key} in {file}"))
    return given


def _from_env(env: Mapping[str, str]) -> list[tuple[str, Any, str]]:
    given = []
    for variable in sorted(env):
        short = variable.removeprefix(PREFIX)
        if short == variable or short in NOT_SETTINGS:
            continue
        name = SHORT.get(short, short).lower().replace("__", ".", 1)
        if name not in settings():
            raise ConfigError(f"{variable} is no setting{_nearest(name, variable_of)}")
        value: Any = env[variable]
        if get_origin(settings()[name]) is tuple:  # tuples are written 1,2,inf
            value = [part.strip() for part in value.split(",") if part.strip()]
        given.append((name, value, variable))
    return given


def settings() -> dict[str, Any]:
    """Every setting's name, "section.key", and its type."""
    known = {}
    for section, entry in Config.model_fields.items():
        kind = entry.annotation
        if is_dataclass(kind):
            hints = get_type_hints(kind)
            known.update({f"{section}.{key.name}": hints[key.name] for key in fields(kind)})
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            keys = kind.model_fields.items()
            known.update({f"{section}.{key}": value.annotation for key, value in keys})
    return known


def variable_of(name: str) -> str:
    """The environment variable of a setting.

    >>> variable_of("worker.group")
    'STREAMLEARN_WORKER__GROUP'
    """
    return PREFIX + name.upper().replace(".", "__")


def _nearest(name: str, show: Any = str) -> str:
    names = list(settings())
    close = get_close_matches(name, names, n=1) or get_close_matches(
        name.rpartition(".")[2], [known.rpartition(".")[2] for known in names], n=1
    )
    if not close:
        return f"; the settings are {', '.join(show(known) for known in names)}"
    full = next(known for known in names if known == close[0] or known.endswith("." + close[0]))
    return f"; did you mean {show(full)}?"
