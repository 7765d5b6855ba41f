"""Topic specs: `topics/*.toml` checked and frozen. The only place that knows topic names.

A file `topics/events.toml` describes the topic `<prefix>events`. Partitioned topics all have the
same number of partitions, and what belongs to a stream goes to the same partition number in each.
"""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from streamlearn.errors import ConfigError
from streamlearn.shipped import shipped

NAMES = (
    "events",
    "updates",
    "snapshots",
    "state",
    "metrics",
    "deadletters",
    "predictions",
    "labels",
    "label-requests",
    "slow",
    "metagradients",
)
_KEYS = {"about", "key", "value", "partitioned", "config"}


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """One topic as it should be on the broker."""

    name: str  # "events"
    full_name: str  # "streamlearn.events"
    partitions: int
    about: str
    key: str  # what a message's key is, in words
    value: str  # what its value is, in words
    config: Mapping[str, str] = field(default_factory=dict)  # Kafka's topic settings


@dataclass(frozen=True, slots=True)
class Topics:
    """All topics of one installation, by short name.

    >>> topics = load(prefix="demo.", partitions=4)
    >>> topics["events"].full_name, topics["events"].partitions, topics["metrics"].partitions
    ('demo.events', 4, 1)
    """

    prefix: str
    specs: tuple[TopicSpec, ...]

    def __getitem__(self, name: str) -> TopicSpec:
        for spec in self.specs:
            if spec.name == name:
                return spec
        close = get_close_matches(name, NAMES, n=1)
        raise ConfigError(
            f"no topic is called {name!r}; "
            + (f"did you mean {close[0]!r}?" if close else f"there are {', '.join(NAMES)}")
        )

    def __iter__(self) -> Iterator[TopicSpec]:
        return iter(self.specs)

    def __len__(self) -> int:
        return len(self.specs)


def load(*, prefix: str, partitions: int, folder: Path | None = None) -> Topics:
    """Read the specs; ConfigError for a file that is missing, unknown or wrong."""
    folder = folder or shipped("topics")
    found = {path.stem: path for path in sorted(folder.glob("*.toml"))}
    for name in sorted(found.keys() ^ set(NAMES)):
        state = "unknown" if name in found else "missing"
        raise ConfigError(
            f"topic file {folder / name}.toml is {state}: there must be one file for each of "
            f"{', '.join(NAMES)}"
        )
    return Topics(prefix, tuple(_spec(found[name], prefix, partitions) for name in NAMES))


def _spec(path: Path, prefix: str, partitions: int) -> TopicSpec:
    try:
        raw: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"topic file {path} cannot be read: {error}") from error
    if raw.keys() != _KEYS:
        wrong = ", ".join(sorted(raw.keys() ^ _KEYS))
        raise ConfigError(
            f"topic file {path} must have the keys {sorted(_KEYS)}; missing or unknown: {wrong}"
        )
    texts = [raw["about"], raw["key"], raw["value"], *raw["config"].values()]
    if not isinstance(raw["partitioned"], bool) or not all(isinstance(t, str) for t in texts):
        raise ConfigError(
            f"topic file {path}: `partitioned` must be true or false and all else text in quotes "
            f"(Kafka's settings too), got {raw}"
        )
    return TopicSpec(
        name=path.stem,
        full_name=prefix + path.stem,
        partitions=partitions if raw["partitioned"] else 1,
        about=raw["about"],
        key=raw["key"],
        value=raw["value"],
        config=dict(raw["config"]),
    )
