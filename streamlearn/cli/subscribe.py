"""`streamlearn subscribe`: hold the newest models, show them, predict with them."""

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from streamlearn.cli.file_options import Images
from streamlearn.cli.interrupts import check, interrupt_on
from streamlearn.cli.options import Bootstrap, ConfigFile, Prefix, load_config

if TYPE_CHECKING:
    from streamlearn.config import Config
    from streamlearn.core.records import Frame
    from streamlearn.runtime.replica import Held
    from streamlearn.runtime.subscriber import StreamModel, Subscriber


def subscribe(
    stream: Annotated[
        str | None, typer.Option(help="Only this stream [all].", show_default=False)
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on, with a line for each new version.")
    ] = False,
    predict: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Predict this file's events with the newest model of --stream.",
            show_default=False,
        ),
    ] = None,
    image: Images = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Follow, and compare own predictions with the worker's, bit by bit; the worker "
            "needs STREAMLEARN_WORKER__PREDICTIONS=true.",
        ),
    ] = False,
    public_key: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Refuse what is not signed with this key; may be given several times "
            "[STREAMLEARN_SUBSCRIBER__PUBLIC_KEYS].",
            show_default=False,
        ),
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="Serve /metrics on this port of 127.0.0.1 with --follow: messages by outcome, "
            "streams, streams that lag [none].",
            show_default=False,
        ),
    ] = None,
    config: ConfigFile = None,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    json: Annotated[
        bool, typer.Option("--json", help="JSON: one object, or one a line with --follow.")
    ] = False,
) -> None:
    """Show the newest models, follow them, or predict with them.

    Example: streamlearn subscribe --stream boiler-7 --predict readings.csv
    """
    settings = load_config(
        config,
        kafka__bootstrap=bootstrap,
        topics__prefix=prefix,
        subscriber__public_keys=public_key or None,
    )
    from streamlearn.errors import InputError
    from streamlearn.runtime.subscriber import Subscriber

    if predict is not None and (follow or verify):
        raise InputError("--predict ends with its file, --follow never does: give one of them")
    if metrics_port is not None and not (follow or verify):
        raise InputError("--metrics-port serves as long as --follow goes on: give that, too")
    if image and predict is None:
        raise InputError("--image names a column of the file that --predict reads: give that, too")
    with Subscriber(
        settings.kafka,
        topic_prefix=settings.topics.prefix,
        public_key=settings.subscriber.public_keys,
    ) as subscriber:
        if stream is not None and not (follow or verify):
            subscriber.model(stream)  # else: unknown, with those known
        if predict is not None:
            _predict(subscriber, stream, predict, tuple(image or ()), json)
        elif follow or verify:
            with _serving(subscriber, metrics_port):
                _follow(subscriber, stream, settings if verify else None, json)
        else:
            chosen = [stream] if stream is not None else sorted(subscriber.streams(), key=_natural)
            if chosen or subscriber.refused is None:
                _show([subscriber.model(name) for name in chosen], json)
            else:
                raise InputError(f"no model that can be trusted: {subscriber.refused}")


@contextmanager
def _serving(subscriber: "Subscriber", port: int | None) -> Iterator[None]:
    """With its metrics on that port, if any."""
    if port is None:
        yield
        return
    from prometheus_client import CollectorRegistry

    from streamlearn.telemetry.metrics_server import MetricsServer

    registry = CollectorRegistry()
    registry.register(subscriber.metrics)
    server = MetricsServer(registry, host="127.0.0.1", port=port)
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"[dim]metrics at {server.url}[/]")
    try:
        yield
    finally:
        server.close()


def _show(models: "list[StreamModel]", json: bool) -> None:
    if json:
        _print_json({"streams": {model.stream: _about(model.held) for model in models}})
        return
    table = Table()
    table.add_column("stream")
    for title in ("version", "classes", "columns", "epoch", "hash"):
        table.add_column(title, justify="right" if title != "classes" else "left")
    for model in models:
        held = model.held
        classes = ", ".join(map(str, held.model.classes[:8]))
        classes += ", ..." if len(held.model.classes) > 8 else ""
        columns, version = str(len(held.model.columns)), str(held.model.version)
        epoch = str(held.stamp.epoch)
        table.add_row(model.stream, version, classes, columns, epoch, held.hash[:12])
    Console(markup=False).print(
        table if models else "no model has been published; feed, and run a worker"
    )


def _about(held: "Held") -> dict[str, Any]:
    return {
        "version": held.model.version,
        "epoch": held.stamp.epoch,
        "hash": held.hash,
        "classes": list(held.model.classes),
        "columns": list(held.model.columns),
        "newest_event_s": _or_none(held.stamp.newest_event_s),
        "swapped_s": held.swapped_s,
    }


def _follow(
    subscriber: "Subscriber", stream: str | None, verify: "Config | None", json: bool
) -> None:
    """Lines until Ctrl-C or SIGTERM."""
    from dataclasses import asdict

    from streamlearn.runtime.witness import Witness

    interrupt_on(signal.SIGTERM)
    console = Console(highlight=False, soft_wrap=True, markup=False)  # names are others'
    swaps: SimpleQueue[Held] = SimpleQueue()

    def drain(wait_s: float) -> None:
        while True:
            try:
                held = swaps.get(timeout=wait_s) if wait_s else swaps.get_nowait()
            except Empty:
                return
            wait_s = 0
            if stream is None or held.model.stream == stream:
                _print_version(held, json, console)

    try:
        subscriber.on_version(swaps.put)
        versions = {name: subscriber.model(name).version for name in subscriber.streams()}
        if verify is None:
            _print_ready(versions, json, console)
            while True:
                check()
                drain(0.5)
        with Witness(
            verify.kafka,
            subscriber,
            topic_prefix=verify.topics.prefix,
            public_key=verify.subscriber.public_keys,
        ) as witness:
            _print_ready(versions, json, console)
            while True:
                check()
                for seen in witness.poll(0.02):
                    drain(0)
                    if json:
                        _print_json({"kind": "check", **asdict(seen)})
                    else:
                        console.print(
                            f"{seen.stream}: {len(seen.event_ids) or 'some'} events predicted by "
                            f"version {seen.base_version}: {seen.verdict}"
                        )
                drain(0)
    except KeyboardInterrupt:
        return


def _print_ready(versions: dict[str, int], json: bool, console: Console) -> None:
    if json:
        _print_json({"kind": "ready", "versions": versions})
    else:
        console.print(f"following; {len(versions)} streams have a model. Ctrl-C ends it.")


def _print_version(held: "Held", json: bool, console: Console) -> None:
    if json:
        about = _about(held)
        del about["columns"], about["classes"]
        _print_json({"kind": "version", "stream": held.model.stream, **about})
    else:
        delay_s = held.swapped_s - held.stamp.newest_event_s
        delay = f", {delay_s * 1000:.0f} ms after its newest event" if 0 <= delay_s < 3600 else ""
        console.print(f"{held.model.stream}: version {held.model.version}{delay}")


def _predict(
    subscriber: "Subscriber", stream: str | None, file: Path, images: tuple[str, ...], json: bool
) -> None:
    from streamlearn.errors import InputError
    from streamlearn.sources import open_source

    known = subscriber.streams()
    if stream is None and len(known) != 1:
        raise InputError(
            f"--predict needs --stream, since {len(known)} streams have a model"
            + (f": {', '.join(known[:20])}" if known else "; feed some events and run a worker")
        )
    name = stream or known[0]
    current = subscriber.model(name).current
    console = Console(stderr=True, highlight=False)
    console.print(f"{name}, version {current.version}", style="dim", markup=False)
    n = n_labelled = n_right = 0
    with open_source(file, stream_name=name, images=images) as source:
        for frame in source.frames():
            if not n:
                _check_columns(current.columns, frame, file)
            probabilities = current.predict_proba(frame)  # (n, C)
            best = probabilities.argmax(axis=1).tolist() if current.classes else []
            for row, label in enumerate(frame.labels()):
                predicted = current.classes[best[row]] if best else None
                n += 1
                n_labelled += label is not None
                n_right += label is not None and label == predicted
                if json:
                    said = dict(
                        zip(map(str, current.classes), probabilities[row].tolist(), strict=True)
                    )
                    _print_json({"predicted": predicted, "probabilities": said})
                else:
                    typer.echo("" if predicted is None else predicted)
    right = f"; right for {n_right:,} of {n_labelled:,} that have a label" if n_labelled else ""
    console.print(f"[dim]{n:,} events predicted{right}[/]")


def _check_columns(known: tuple[str, ...], frame: "Frame", file: Path) -> None:
    """InputError where a model can read nothing of the file: it would predict all the same."""
    from streamlearn.errors import InputError

    if known and not {*frame.columns, *frame.texts, *frame.images} & {*known}:
        raise InputError(
            f"{file} has no column that the model of {frame.stream!r} reads: "
            f"{', '.join(known[:20])}{', ...' if len(known) > 20 else ''}"
        )


def _natural(name: str) -> list[str]:
    """person-2 before person-10."""
    return [part.zfill(12) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _print_json(value: object) -> None:
    from json import dumps

    print(dumps(value), flush=True)


def _or_none(number: float) -> float | None:
    return number if number == number else None
