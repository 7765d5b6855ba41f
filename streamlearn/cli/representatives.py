"""`streamlearn representatives`: what a stream remembers of each class, for people."""

import json as json_text
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from streamlearn.cli.options import (
    Bootstrap,
    ConfigFile,
    Json,
    Partition,
    Prefix,
    Stream,
    load_config,
)

if TYPE_CHECKING:
    from streamlearn.core.representatives import Gallery, Shown

VALUES_SHOWN = 6  # of a representative, in the table
CHARACTERS = 60  # of a text, in the table


def representatives(
    stream: Stream,
    of_class: Annotated[
        str | None, typer.Option("--class", help="Only this class [all].", show_default=False)
    ] = None,
    n: Annotated[int, typer.Option("--n", min=1, help="How many of each class.")] = 10,
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Write the images, as they are learned, here.", show_default=False
        ),
    ] = None,
    partition: Partition = None,
    config: ConfigFile = None,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    json: Json = False,
) -> None:
    """Show the events that stand for a stream's past, class by class, the weightiest first.

    Each stands for the `count` events of its class that are most like it. `mode` says which of
    its class's groups it belongs to. A stray is far from all of them: noise, or something new; a
    contradicted one lies among another class's events: look at its label. Events
    with nothing but a label are drawn by chance. Read from the state topic, so as old as the last
    checkpoint.
    """
    from streamlearn.core.representatives import gallery
    from streamlearn.runtime.past import Past

    settings = load_config(config, kafka__bootstrap=bootstrap, topics__prefix=prefix)
    with Past(settings) as past:
        found = gallery(past.state(stream, partition).state)
    chosen = choose(found, of_class, n)
    files = {} if images is None else write_images(chosen, images)
    if json:
        print(json_text.dumps(as_json(found, chosen, files)))
    else:
        show(found, chosen, files, Console())


def choose(found: "Gallery", of_class: str | None, n: int) -> "list[Shown]":
    """At most n of each class, or of one; InputError for a class that the stream has not."""
    from streamlearn.errors import InputError

    names = [str(label) for label in found.n_seen]
    if of_class is not None and of_class not in names:
        raise InputError(
            f"{found.stream!r} has no class {of_class!r}; it has {', '.join(names) or 'none yet'}"
        )
    chosen: list[Shown] = []
    for label in found.n_seen:
        if of_class in (None, str(label)):
            chosen += [one for one in found.shown if one.label == label][:n]
    return chosen


def write_images(chosen: "list[Shown]", folder: Path) -> dict[tuple[int, str], str]:
    """A PNG an image; by slot and column, where it is."""
    from PIL import Image

    from streamlearn.errors import InputError

    files: dict[tuple[int, str], str] = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for one in chosen:
            for k, (name, pixels) in enumerate(one.images.items()):
                file = folder / f"{one.slot:04d}-{k}.png"
                Image.fromarray(pixels).save(file)
                files[one.slot, name] = str(file)
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror}") from None
    return files


def as_json(
    found: "Gallery", chosen: "list[Shown]", files: dict[tuple[int, str], str]
) -> dict[str, Any]:
    """One object: about the stream, its classes, and the representatives."""
    return {
        "stream": found.stream,
        "version": found.version,
        "events": found.events,
        "trusted": found.trusted,
        "recalls": {name: None if r != r else r for name, r in found.recalls.items()},
        "classes": [
            {"class": label, "events": seen, "modes": found.n_modes.get(label, 0)}
            for label, seen in found.n_seen.items()
        ],
        "representatives": [
            {
                "class": one.label,
                "count": one.count,
                "mode": one.mode,
                "verdict": one.verdict.name.lower(),
                "event": one.event,
                "event_time": one.event_time_s,
                "why": one.why.name.lower(),
                "replayed": one.replayed,
                "values": dict(one.values),
                "centre": dict(one.centre),
                "texts": dict(one.texts),
                "images": {name: files.get((one.slot, name)) for name in one.images},
            }
            for one in chosen
        ],
    }


def show(
    found: "Gallery", chosen: "list[Shown]", files: dict[tuple[int, str], str], console: Console
) -> None:
    """A table a class, and what is replayed."""
    for label, seen in found.n_seen.items():
        rows = [one for one in chosen if one.label == label]
        if not rows:
            continue
        modes = found.n_modes.get(label, 0)
        groups = f" in {modes} group{'s' * (modes != 1)}" if modes else ""
        title = f"\n[bold]{escape(str(label))}[/bold]: {seen:,} events{groups}"
        table = Table(title=title, title_justify="left", title_style="", box=None, pad_edge=False)
        for name in ("count", "mode", "event", "replayed"):
            table.add_column(name, justify="right", no_wrap=True)
        for name in ("time (UTC)", "why"):
            table.add_column(name, no_wrap=True)
        table.add_column("values")
        for one in rows:
            odd = one.verdict.name.lower() if one.verdict else ""
            mode = "" if one.mode is None else str(one.mode)
            table.add_row(
                f"{one.count:,}", odd or mode, f"{one.event:,}", str(one.replayed),
                _time(one.event_time_s), one.why.name.lower(), escape(_values(one, files)),
                style="yellow" if odd else "",
            )  # fmt: skip
        console.print(table)
    console.print(_replayed(found), style="dim", highlight=False)


def _replayed(found: "Gallery") -> str:
    named = {"microclusters": "these", "uniform": "a uniform sample"}
    known = [f"{named[name]} {r:.2f}" for name, r in found.recalls.items() if r == r]
    recalls = f"; recall of held-out events: {', '.join(known)}" if known else ""
    return (
        f"\nversion {found.version}, {found.events:,} events; "
        f"replayed: {named[found.trusted]}{recalls}"
    )


def _time(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(" ", "seconds")[:19]
    except (ValueError, OverflowError, OSError):  # a clock that is no calendar's
        return f"{seconds:g}"


def _values(one: "Shown", files: dict[tuple[int, str], str]) -> str:
    said = [f"{name}: {text[:CHARACTERS]}" for name, text in one.texts.items()]
    values = [item for item in one.values.items() if item[0] not in one.texts]
    for name, value in values[:VALUES_SHOWN]:
        said.append(f"{name}={value}" if isinstance(value, str) else f"{name}={value:.4g}")
    if len(values) > VALUES_SHOWN:
        said.append(f"and {len(values) - VALUES_SHOWN} more")
    said += [files.get((one.slot, name), f"{name}: an image, see --images") for name in one.images]
    return ", ".join(said)
