"""`streamlearn feed`: send a file's events."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn

from streamlearn.cli.file_options import (
    File,
    Ignore,
    Images,
    Keep,
    Label,
    Order,
    StreamColumn,
    Time,
)
from streamlearn.cli.interrupts import check
from streamlearn.cli.options import Bootstrap, ConfigFile, Json, Prefix, load_config

if TYPE_CHECKING:
    from streamlearn.runtime.feeder import Counts


def feed(
    file: File,
    label: Label = None,
    stream: StreamColumn = None,
    stream_name: Annotated[
        str | None,
        typer.Option(help="All events are of this stream [the file's name].", show_default=False),
    ] = None,
    time_column: Time = None,
    ignore: Ignore = None,
    keep: Keep = None,
    image: Images = None,
    order: Order = None,
    rate: Annotated[
        str, typer.Option(help="Events a second, as in 200/s; realtime: as --time says; max.")
    ] = "max",
    frame: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=4096,
            help="Events a frame, at most [STREAMLEARN_FEEDER__FRAME_EVENTS; 256].",
            show_default=False,
        ),
    ] = None,
    linger_ms: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="An event waits at most so long for its frame to fill, from a pipe or at a rate "
            "[STREAMLEARN_FEEDER__LINGER_MS; 50].",
            show_default=False,
        ),
    ] = None,
    skip: Annotated[
        int, typer.Option(min=0, help="Leave out so many events: go on where it stopped.")
    ] = 0,
    config: ConfigFile = None,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    json: Json = False,
) -> None:
    """Send a file's events, labelled or not, to be learned.

    Columns' kinds are inferred and said. Events of one stream go in frames, in the file's order,
    and are counted when the broker has acknowledged them.

    Example: streamlearn feed pumps.csv --label state --stream pump --rate 200/s
    """
    settings = load_config(
        config,
        kafka__bootstrap=bootstrap,
        topics__prefix=prefix,
        feeder__frame_events=frame,
        feeder__linger_ms=linger_ms,
    )
    from streamlearn.errors import InputError
    from streamlearn.runtime.feeder import Feeder
    from streamlearn.runtime.feeding import Pace, Rate
    from streamlearn.runtime.feeding import feed as feed_frames
    from streamlearn.sources import open_source

    pace = Rate.parse(rate)
    if pace.realtime and time_column is None:
        raise InputError("--rate realtime goes by the events' times: say with --time which column")
    frame_events = settings.feeder.frame_events
    if frame is None:
        frame_events = pace.frame_events(frame_events, settings.feeder.linger_ms / 1000)
    live = file == "-"
    console = Console(stderr=True, highlight=False)
    source = open_source(
        file if live else Path(file),
        label=label,
        stream=stream,
        stream_name=stream_name,
        time=time_column,
        ignore=tuple(ignore or ()),
        keep=tuple(keep or ()),
        images=tuple(image or ()),
        order=order,
        keep_files=True,
        frame_events=frame_events,
    )
    if not source.inferred.timed:
        source.inferred.time = "when it is sent, since --time names no column"
    with source:
        n_said = len(source.inferred.notes)
        for line in source.inferred.lines():
            console.print(line, style="dim", markup=False, soft_wrap=True)
        with Feeder(
            settings.kafka,
            topic_prefix=settings.topics.prefix,
            frame_events=settings.feeder.frame_events,
            linger_ms=settings.feeder.linger_ms,
        ) as feeder:
            begun = time.monotonic()
            stopped = False
            sending = feed_frames(
                source.frames(skip=skip),
                feeder,
                Pace(pace),
                collect=live or pace.realtime,
                stamp=None if source.inferred.timed else time.time,
            )
            with _progress(console) as progress:
                task = progress.add_task("sending", total=None if source.done is None else 1.0)
                try:
                    for _ in sending:
                        check()
                        counts = feeder.counts
                        progress.update(
                            task,
                            completed=source.done or 0,
                            sent=f"{counts.sent:,}",
                            acknowledged=f"{counts.acknowledged:,}",
                        )
                except KeyboardInterrupt:
                    stopped = True
            counts = feeder.flush()
        seconds = time.monotonic() - begun
    for column, cells in source.inferred.unreadable.items():
        if cells:
            said = f"{column}: {cells:,} cells could not be read, taken as missing"
            console.print(said, markup=False, soft_wrap=True)
    for note in source.inferred.notes[n_said:]:
        console.print(note, markup=False, soft_wrap=True)
    console.print(
        f"sent {counts.sent:,} events in {counts.frames:,} frames, "
        f"{counts.acknowledged:,} acknowledged, {seconds:.1f} s"
    )
    if stopped:
        console.print(f"stopped; go on with --skip {skip + counts.acknowledged}")
    if json:
        typer.echo(_as_json(counts, seconds, skip))
    if stopped:
        raise typer.Exit(130)


def _as_json(counts: "Counts", seconds: float, skip: int) -> str:
    from json import dumps

    return dumps(
        {
            "sent": counts.sent,
            "acknowledged": counts.acknowledged,
            "frames": counts.frames,
            "seconds": round(seconds, 3),
            "next_skip": skip + counts.acknowledged,
        }
    )


def _progress(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("sent {task.fields[sent]}, acknowledged {task.fields[acknowledged]}"),
        BarColumn(),
        TaskProgressColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
