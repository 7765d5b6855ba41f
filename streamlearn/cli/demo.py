"""`streamlearn demo`: see the whole loop work, on a broker of its own."""

import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import uuid4

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from streamlearn.cli.interrupts import check, interrupt_on
from streamlearn.cli.options import Json, broker_given, environment, load_config

if TYPE_CHECKING:
    from streamlearn.config import Config
    from streamlearn.runtime.broker import LocalBroker
    from streamlearn.runtime.demo import Demo
    from streamlearn.runtime.feeding import Rate
    from streamlearn.runtime.scoreboard import Summary

FRAME_EVENTS = 8  # small frames, so that there is something to see
LINE_EVERY_S = 3.0  # where there is no terminal to draw on


def demo(
    exit_: Annotated[
        bool, typer.Option("--exit", help="End after the summary instead of staying up.")
    ] = False,
    json: Json = False,
    rate: Annotated[str, typer.Option(help="Events a second, as in 150/s; or max.")] = "150/s",
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Where broker and worker keep their data; a later demo goes on with it, and knows "
            "these events already. "
            "Without it: a temporary folder, gone at the end.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """See the whole loop work: feed, learn, publish, subscribe, on a real Kafka.

    Starts a broker (or uses STREAMLEARN_BOOTSTRAP), a worker and a subscriber, and feeds ten
    people's wrist-sensor events. The subscriber checks that it predicts the same bits as the
    worker. Exit code 0 only if it did and no event was lost or learned twice.
    """
    from streamlearn.errors import InputError
    from streamlearn.runtime.feeding import Rate

    pace = Rate.parse(rate)
    if pace.realtime:
        raise InputError("the demo's events have no times of their own: give a --rate as 150/s")
    console = Console(stderr=json, highlight=False)
    interrupt_on(signal.SIGTERM, signal.SIGHUP)  # what ends this also ends what it started
    with ExitStack() as stack:
        folder = data_dir
        if folder is None:
            temporary = tempfile.TemporaryDirectory(prefix="streamlearn-demo-")
            folder = Path(stack.enter_context(temporary))
        folder.mkdir(parents=True, exist_ok=True)
        config, broker = stack.enter_context(_broker(folder, console))
        summary = _run(config, broker, folder, pace, console, stay=not exit_)
    if json:
        from json import dumps

        typer.echo(dumps(summary.as_json()))
    raise typer.Exit(0 if summary.passed else 1)


@contextmanager
def _broker(folder: Path, console: Console) -> "Iterator[tuple[Config, LocalBroker | None]]":
    """A broker with topics, and the settings that reach it."""
    config = load_config()
    from streamlearn import topics
    from streamlearn.runtime import admin
    from streamlearn.runtime.broker import LocalBroker

    if broker_given():  # somebody's: topics of our own there, and gone afterwards
        prefix = f"demo-{uuid4().hex[:8]}."
        own = config.topics.model_copy(update={"prefix": prefix})
        group = config.worker.model_copy(update={"group": prefix + "workers"})
        config = config.model_copy(update={"topics": own, "worker": group})
        specs = topics.load(prefix=prefix, partitions=own.partitions)
        console.print(f"using the broker at {config.kafka.bootstrap}, topics {prefix}*")
        admin.apply(config.kafka, specs, replication=own.replication)
        try:
            yield config, None
        finally:
            admin.delete(config.kafka, specs)
        return
    with LocalBroker(
        data_dir=folder / "kafka",
        cache_dir=config.broker.cache_dir,
        heap=config.broker.heap,
        on_progress=lambda message: console.print(f"[dim]{message}[/]"),
    ) as broker:
        kafka = config.kafka.model_copy(update={"bootstrap": broker.bootstrap})
        config = config.model_copy(update={"kafka": kafka})
        specs = topics.load(prefix=config.topics.prefix, partitions=config.topics.partitions)
        admin.apply(kafka, specs, replication=config.topics.replication)
        yield config, broker


def _run(
    config: "Config",
    broker: "LocalBroker | None",
    folder: Path,
    rate: "Rate",
    console: Console,
    *,
    stay: bool,
) -> "Summary":
    from streamlearn.runtime.demo import Demo, named
    from streamlearn.runtime.warm_up import warm_up
    from streamlearn.shipped import shipped
    from streamlearn.sources import open_source

    # Here once, not in the worker and the subscriber at the same time.
    console.print("[dim]warming up; the first time, loops are compiled: half a minute or more[/]")
    warm_up(config.learner)
    console.print("[dim]starting a worker and a subscriber[/]")
    with Demo(
        config,
        program=[sys.executable, "-m", "streamlearn"],
        env=environment(),
        folder=folder,
        broker=broker,
    ) as running:
        console.print(f"[dim]Kafka at {config.kafka.bootstrap}, worker pid {running.worker.pid}[/]")
        data = shipped("watch_imu.npz")
        with (
            open_source(data, stream="subject", frame_events=FRAME_EVENTS) as source,
            _shown(running, console),
        ):
            running.play(named(source.frames(), "person", uuid4().hex[:6]), rate)
            running.settle()
        _print_summary(running.board.summary(), console)
        if stay:
            _print_hints(running, config, console)
            try:
                with _shown(running, console):
                    while True:
                        running.pass_time(0.2)
            except KeyboardInterrupt:
                console.print("stopping")
        return running.board.summary()


@contextmanager
def _shown(demo: "Demo", console: Console) -> Iterator[None]:
    """A table that keeps itself current; without a terminal, a line now and then."""
    if console.is_terminal:
        with Live(_view(demo), console=console, auto_refresh=False) as live:

            def draw() -> None:
                check()
                live.update(_view(demo), refresh=True)

            demo.on_tick = draw
            yield
            live.update(_view(demo), refresh=True)
        demo.on_tick = lambda: None
        return
    told, told_s = "", time.monotonic()

    def tell() -> None:
        nonlocal told, told_s
        check()
        line = "; ".join([_totals(demo.board.summary()), *demo.notes])
        if line != told and time.monotonic() - told_s >= LINE_EVERY_S:
            told, told_s = line, time.monotonic()
            console.print(line, soft_wrap=True)

    demo.on_tick = tell
    yield
    demo.on_tick = lambda: None


def _view(demo: "Demo") -> Group:
    table = Table(pad_edge=False)
    table.add_column("stream")
    for title in ("events", "accuracy", "no-change", "majority", "version", "age", "same bits"):
        table.add_column(title, justify="right")
    for row in demo.board.rows(time.time()):
        age = "" if row.age_s is None else f"{row.age_s:.1f} s"
        rates = [f"{x:.3f}" for x in (row.accuracy, row.no_change, row.majority)]
        same = f"{row.same} of {row.same + row.different}" if row.same + row.different else ""
        if row.different:
            same = f"[red]{same}[/]"
        scores = rates if row.tested else [""] * 3
        events = f"{row.tested:,} of {row.sent:,}" if row.sent else ""
        table.add_row(escape(row.stream), events, *scores, str(row.version), age, same)
    notes = [Text(f"  {note}", style="yellow") for note in demo.notes]
    return Group(table, Text(_totals(demo.board.summary())), *notes)


def _totals(summary: "Summary") -> str:
    parts = [f"{summary.events:,} events"]
    if summary.updates and summary.events_per_s:  # before the pace begins there is nothing to say
        parts += [
            f"{summary.events_per_s:.0f}/s",
            f"accuracy {summary.accuracy:.3f} (no-change {summary.no_change:.3f}, "
            f"majority {summary.majority:.3f})",
            f"{summary.updates:,} updates",
        ]
    if summary.p50_ms is not None and summary.p99_ms is not None and len(parts) > 1:
        parts.append(f"sent to swapped p50 {summary.p50_ms:.0f} ms, p99 {summary.p99_ms:.0f} ms")
    return ", ".join(parts)


def _print_summary(summary: "Summary", console: Console) -> None:
    console.print(_totals(summary), soft_wrap=True)
    if summary.subscriber_matches:
        console.print(
            f"[green]The subscriber predicted the same bits as the worker[/] in all "
            f"{summary.frames_checked} frames that both predicted with the same version."
        )
    else:
        console.print("[red]The subscriber's predictions differ from the worker's[/]")
    colour = "green" if summary.lost == summary.duplicated == 0 else "red"
    console.print(f"[{colour}]{summary.lost} events lost, {summary.duplicated} learned twice.[/]")


def _print_hints(demo: "Demo", config: "Config", console: Console) -> None:
    prefix = "" if config.topics.prefix == "streamlearn." else f" --prefix {config.topics.prefix}"
    console.print("\nIt stays up. In another terminal:")
    lines = [
        (f"export STREAMLEARN_BOOTSTRAP={config.kafka.bootstrap}", ""),
        (f"streamlearn feed YOUR.csv --label COLUMN{prefix}", "learn your own file"),
        (f"streamlearn subscribe --follow{prefix}", "watch the versions come"),
        (f"kill -9 {demo.worker.pid}", "the worker: it comes back and goes on where it was"),
        (f"curl {demo.metrics_url}", "its metrics"),
    ]
    for command, why in lines:
        console.print(f"  {command}" + (f"  [dim]# {why}[/]" if why else ""), soft_wrap=True)
    console.print("Ctrl-C ends everything.\n")
