"""`streamlearn evaluate`: the learner on a file, tested before it learns, without Kafka."""

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from streamlearn.cli.options import Json

if TYPE_CHECKING:
    from streamlearn.core.learner import Outcome
    from streamlearn.core.records import Frame
    from streamlearn.evaluation import Evaluation
    from streamlearn.sources import Inferred, Source

BAR = 24  # characters of a full bar
STREAMS_SHOWN = 12
CLASSES_SHOWN = 12


def evaluate(
    file: Annotated[
        str, typer.Argument(help="CSV (also .gz), Parquet, JSON lines or .npz; - is a pipe.")
    ],
    label: Annotated[
        str | None,
        typer.Option(
            metavar="COL",
            help="The column that holds the classes; an npz has them in y.",
            show_default=False,
        ),
    ] = None,
    stream: Annotated[
        str | None,
        typer.Option(
            metavar="COL",
            help="The column that says whose event it is: each stream has a model of its own.",
            show_default=False,
        ),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(
            metavar="COL", help="The column that holds the events' times.", show_default=False
        ),
    ] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option(metavar="COL", help="A column to leave out.", show_default=False),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COL",
            help="A column to use though it would be left out: a counter, an id.",
            show_default=False,
        ),
    ] = None,
    step: Annotated[
        int,
        typer.Option(
            min=1,
            max=4096,
            help="How many events are predicted before their labels are learned. 1: every label "
            "is known at once, the most accurate and slowest. 256: a worker's default, fast. 32 "
            "lies between; choose what fits the delay of your labels. (A stream's very first "
            "steps are shorter.)",
        ),
    ] = 32,
    seed: Annotated[
        int, typer.Option(min=0, help="Of the random features: same seed, same figures.")
    ] = 0,
    as_json: Json = False,
) -> None:
    """Test, then learn a file, event by event, as a worker would, without Kafka.

    Every event is predicted before its label is learned, so no event is ever tested on what was
    learned from it. Accuracy is shown beside what costs nothing: predicting the last label
    (no-change), or the most frequent one (majority). What the columns were taken for is said.

    Example: streamlearn evaluate pumps.csv --label state --stream pump
    """
    from streamlearn.core.settings import LearnerSettings
    from streamlearn.evaluation import evaluate as run
    from streamlearn.evaluation import frame_events
    from streamlearn.sources import open_source

    settings = LearnerSettings(seed=seed, step_events=step)
    notices = Console(stderr=True)
    with open_source(
        file,
        label=label,
        stream=stream,
        time=time,
        ignore=tuple(ignore or ()),
        keep=tuple(keep or ()),
        frame_events=frame_events(step),
    ) as source:
        require_label(source.inferred)
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[said]}"),
            TimeElapsedColumn(),
            console=notices,
            transient=True,
        ) as progress:
            result = run(source.frames(), settings, watch=_Watch(progress, source))
    if not as_json:
        show(result, source.inferred, Console())
        return
    for line in source.inferred.lines():
        notices.print(line, style="dim", markup=False, highlight=False)
    typer.echo(json.dumps(result.as_json(), allow_nan=False))


def require_label(inferred: "Inferred") -> None:
    """InputError where no column holds labels: nothing could be learned."""
    from streamlearn.errors import InputError

    if inferred.label is None:
        columns = ", ".join(map(repr, inferred.columns))
        raise InputError(
            f"{inferred.name} needs --label: name the column that holds the classes; "
            f"its columns: {columns}"
        )


class _Watch:
    """Moves the progress bar at every frame."""

    def __init__(self, progress: Progress, source: "Source") -> None:
        self._progress, self._source = progress, source
        self._task = progress.add_task("learning", total=1.0, said="")
        self._events = self._labelled = self._correct = 0

    def __call__(self, frame: "Frame", outcome: "Outcome") -> None:
        self._events += len(frame)
        self._labelled += outcome.n_labelled
        self._correct += outcome.n_correct
        accuracy = self._correct / max(self._labelled, 1)
        done = self._source.done
        self._progress.update(
            self._task,
            total=None if done is None else 1.0,
            completed=done or 0.0,
            said=f"{self._events:,} events, accuracy {accuracy:.3f}",
        )


def show(result: "Evaluation", inferred: "Inferred", console: Console) -> None:
    """For people: what was inferred, the figures beside their baselines, who carries them."""
    from streamlearn.sources.kinds import Kind

    for line in inferred.lines():
        console.print(line, style="dim", markup=False, highlight=False)
    if inferred.of_kind(Kind.TEXT):
        console.print("texts are learned from word by word: the experts called text", style="dim")
    console.print()
    console.print(_figures(result))
    console.print(_experts(result))
    if len(result.streams) > 1:
        console.print(_streams(result))
    classes = ", ".join(str(one) for one in result.classes[:CLASSES_SHOWN])
    more = len(result.classes) - CLASSES_SHOWN
    classes += f" and {more} more" if more > 0 else ""
    console.print(f"{len(result.classes)} classes: {classes}", markup=False, highlight=False)
    console.print(
        f"{result.n:,} of {result.events:,} events labelled; {result.seconds:.1f} s, "
        f"{result.events_per_s:,.0f} events/s; step {result.step}, seed {result.seed}",
        highlight=False,
    )


def _bar(share: float) -> str:
    return "█" * round(BAR * min(max(share, 0.0), 1.0))


def _figures(result: "Evaluation") -> Table:
    table = Table(box=None, pad_edge=False, title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right")
    table.add_column(no_wrap=True)
    table.add_column(style="dim")
    better = result.accuracy >= max(result.no_change_delayed, result.majority)
    style = "bold green" if better else "bold red"
    shown = (
        ("accuracy", result.accuracy, "test, then learn", style),
        ("no-change", result.no_change, "the label just before", ""),
        ("  delayed", result.no_change_delayed, "the last one known to the model", ""),
        ("majority", result.majority, "the most frequent label so far", ""),
    )
    for name, value, note, look in shown:
        table.add_row(name, f"{value:.3f}", _bar(value), note, style=look)
    table.add_row("kappa", f"{result.kappa:.3f}", "", "above chance; 1 is perfect")
    table.add_row("kappa temporal", f"{result.kappa_temporal:.3f}", "", "above no-change")
    return table


def _experts(result: "Evaluation") -> Table:
    table = Table(
        box=None, pad_edge=False, title="\nwho is trusted now", title_justify="left",
        title_style="", show_header=False,
    )  # fmt: skip
    table.add_column(no_wrap=True)
    table.add_column(justify="right")
    table.add_column(no_wrap=True)
    for name, weight in sorted(result.experts.items(), key=lambda item: -item[1]):
        table.add_row(escape(name), f"{weight:.2f}", _bar(weight))
    return table


def _streams(result: "Evaluation") -> Table:
    table = Table(box=None, pad_edge=False, title_justify="left")
    table.add_column(f"\n{len(result.streams)} streams", no_wrap=True)
    for title in ("events", "accuracy", "no-change", "majority"):
        table.add_column(f"\n{title}", justify="right")
    table.add_column("\ndrift")
    for one in result.streams[:STREAMS_SHOWN]:
        table.add_row(
            escape(one.stream),
            f"{one.n:,}",
            f"{one.accuracy:.3f}",
            f"{one.no_change:.3f}",
            f"{one.majority:.3f}",
            f"{one.drift}, {one.n_drifts} so far" if one.n_drifts else one.drift,
        )
    if len(result.streams) > STREAMS_SHOWN:
        table.add_row(f"and {len(result.streams) - STREAMS_SHOWN} more: --json has them all")
    return table
