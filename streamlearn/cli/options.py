"""Flags that several commands share, and the way from flags and environment to a Config.

The only place that reads the environment.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from streamlearn.config import Config

_LONG_BOOTSTRAP = "STREAMLEARN_KAFKA__BOOTSTRAP"

ConfigFile = Annotated[
    Path | None,
    typer.Option("-c", "--config", help="Settings file (TOML).", show_default=False),
]
Bootstrap = Annotated[
    str | None,
    typer.Option(
        help="The broker, host:port [STREAMLEARN_BOOTSTRAP; localhost:9092].", show_default=False
    ),
]
Prefix = Annotated[
    str | None,
    typer.Option(
        "--prefix",
        help="What topic names start with [STREAMLEARN_TOPICS__PREFIX; streamlearn.].",
        show_default=False,
    ),
]
Stream = Annotated[str, typer.Argument(metavar="STREAM", help="The stream.", show_default=False)]
Partition = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Where the stream lies, if it was fed to several partitions.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="The result as one JSON object, last line.")]


def load_config(file: Path | None = None, **flags: object) -> "Config":
    """Settings from the environment, `file` and flags: load_config(file, kafka__bootstrap=...).

    A flag that is None was not given. Raises ConfigError.
    """
    from streamlearn import config  # here, because `--help` should not wait for pydantic

    named = {name.replace("__", ".", 1): value for name, value in flags.items()}
    return config.load(os.environ, file, named)


def debug_wanted(arguments: list[str]) -> bool:
    """Whether tracebacks are asked for, by flag or by environment."""
    return "--debug" in arguments or os.environ.get("STREAMLEARN_DEBUG", "0") not in ("", "0")


def broker_given() -> bool:
    """Whether the environment names a broker."""
    return any(os.environ.get(name) for name in ("STREAMLEARN_BOOTSTRAP", _LONG_BOOTSTRAP))


def environment() -> dict[str, str]:
    """A copy of the environment, for processes that we start."""
    return dict(os.environ)
