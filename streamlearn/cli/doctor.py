"""`streamlearn doctor`: what is there, what is missing, and how to mend it.

Needed are Python, the packages, and a broker: one that answers, or the means to start one.
A broker that was named and does not answer is missing, and so are topics that differ.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from streamlearn.cli.options import Bootstrap, ConfigFile, Prefix, load_config
from streamlearn.errors import StreamlearnError

if TYPE_CHECKING:
    from streamlearn.config import Config
    from streamlearn.topics import Topics

PYTHON = (3, 11)
JAVA = 17


class State(StrEnum):
    """What a check found: a closed set."""

    OK = "ok"
    NOTE = "--"  # not there, and not needed
    MISSING = "no"


COLOURS = {State.OK: "green", State.NOTE: "yellow", State.MISSING: "bold red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    name: str
    state: State
    text: str  # what was found, or how to mend it


def doctor(config: ConfigFile = None, bootstrap: Bootstrap = None, prefix: Prefix = None) -> None:
    """Check Python, Java, Maven, Docker, GPU, the broker and its topics.

    A line says ok, -- (not there and not needed) or no (needed: it says how to mend it).
    The exit code is 1 if there is a "no".
    """
    settings = load_config(config, kafka__bootstrap=bootstrap, topics__prefix=prefix)
    console = Console(highlight=False)
    missing = False
    for finding in findings(settings):
        mark = f"[{COLOURS[finding.state]}]{finding.state}[/]"
        console.print(f" {mark}  {finding.name:<9} ", end="")
        console.print(finding.text, markup=False, soft_wrap=True)
        missing = missing or finding.state is State.MISSING
    if missing:
        raise typer.Exit(1)


def findings(settings: "Config") -> Iterator[Finding]:
    """All checks in order, each made when it is asked for."""
    yield _python()
    yield _packages()
    tools = [_java(), _maven(settings), _docker()]
    yield from tools
    yield _gpu()
    yield _state_folder(settings)
    java, maven, docker = (tool.state is State.OK for tool in tools)
    yield from _kafka(settings, can_start=(java and maven) or docker)


def _python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] >= PYTHON:
        return Finding("Python", State.OK, f"{found} at {sys.executable}")
    return Finding("Python", State.MISSING, f"{found}; install Python 3.11 or newer")


def _packages() -> Finding:
    try:
        required = metadata.requires("streamlearn") or []
    except metadata.PackageNotFoundError:
        return Finding("packages", State.MISSING, "streamlearn is not installed: make setup")
    names = [
        re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in required if "extra ==" not in line
    ]
    versions, missing = [], []
    for name in names:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return Finding(
            "packages", State.MISSING, f"not installed: {', '.join(missing)}: make setup"
        )
    own = metadata.version("streamlearn")
    return Finding("packages", State.OK, f"streamlearn {own}; {', '.join(versions)}")


def _first_line(command: list[str], pick: Callable[[str], bool]) -> str | None:
    """The first line of a program's output that `pick` accepts, None if it cannot be run."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode != 0:
        return None
    lines = (done.stdout + done.stderr).splitlines()
    return next((re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines if pick(line)), None)


def _java() -> Finding:
    line = _first_line(["java", "-version"], lambda line: "version" in line)
    if line is None:
        return Finding("Java", State.NOTE, "not found; a local broker needs Java 17 or newer")
    number = re.search(r'"(\d+)', line)
    if number is None or int(number[1]) < JAVA:
        return Finding("Java", State.NOTE, f"{line}; a local broker needs Java 17 or newer")
    return Finding("Java", State.OK, line)


def _maven(settings: "Config") -> Finding:
    from streamlearn.runtime.kafka_jars import jars_folder

    folder = jars_folder(settings.broker.cache_dir)
    line = _first_line(["mvn", "-v"], lambda line: "Apache Maven" in line)
    if folder.is_dir():
        return Finding("Maven", State.OK, f"{line or 'not needed'}; Kafka's jars are in {folder}")
    if line is None:
        return Finding("Maven", State.NOTE, "not found; it fetches Kafka for a local broker")
    return Finding("Maven", State.OK, f"{line}; Kafka's jars will be fetched into {folder}")


def _docker() -> Finding:
    line = _first_line(["docker", "version", "--format", "Docker engine {{.Server.Version}}"], bool)
    if line is None:
        text = "no engine answers; only docker compose, or a broker without Java, needs it"
        return Finding("Docker", State.NOTE, text)
    return Finding("Docker", State.OK, line)


def _gpu() -> Finding:
    import torch

    if torch.cuda.is_available():
        return Finding("GPU", State.OK, torch.cuda.get_device_name(0))
    return Finding("GPU", State.NOTE, "none that torch can use; the CPU does all the work")


def _state_folder(settings: "Config") -> Finding:
    folder = settings.worker.state_dir.absolute()
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    try:
        probe = there / f".streamlearn-doctor-{id(settings)}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        remedy = (
            f"{error.strerror}: {there}; set STREAMLEARN_WORKER__STATE_DIR to a folder of yours"
        )
        return Finding("state", State.MISSING, remedy)
    free_gib = shutil.disk_usage(there).free / 2**30
    return Finding("state", State.OK, f"{folder} can be written, {free_gib:.0f} GiB free")


def _kafka(settings: "Config", *, can_start: bool) -> Iterator[Finding]:
    from streamlearn.runtime import admin
    from streamlearn.topics import load

    specs = load(prefix=settings.topics.prefix, partitions=settings.topics.partitions)
    try:
        differences = admin.diff(settings.kafka, specs)
    except StreamlearnError as error:
        named = "bootstrap" in settings.kafka.model_fields_set
        state = State.NOTE if can_start and not named else State.MISSING
        text = str(error)
        if not can_start:
            text += "; a local one needs Java 17 with Maven, or Docker"
        yield Finding("broker", state, text)
        return
    how = "" if settings.kafka.protocol == "PLAINTEXT" else f", {settings.kafka.protocol}"
    yield Finding("broker", State.OK, f"answers at {settings.kafka.bootstrap}{how}")
    if differences:
        text = f"{differences[0]}, and {len(differences) - 1} more" if differences[1:] else ""
        yield Finding(
            "topics",
            State.MISSING,
            f"{text or differences[0]}; mend it with `streamlearn topics apply`",
        )
    else:
        yield Finding("topics", State.OK, f"all {len(specs)} as specified")
    if settings.kafka.protocol != "PLAINTEXT":
        yield _rights(settings, specs)


def _rights(settings: "Config", specs: "Topics") -> Finding:
    from streamlearn.runtime import access
    from streamlearn.runtime.connection import who

    fitting = [
        role
        for role in access.roles()
        if not access.missing(settings.kafka, role, specs, settings.worker.group)
    ]
    name = who(settings.kafka)
    if fitting:
        return Finding("rights", State.OK, f"{name} may work as {', '.join(fitting)}")
    text = f"{name} may do no role's work; grant it with `streamlearn access apply`"
    return Finding("rights", State.MISSING, text)
