"""`streamlearn evaluate`: the learner on a file, tested before it learns, without Kafka."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

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
from streamlearn.cli.options import Json

if TYPE_CHECKING:
    from streamlearn.core.learner import Outcome
    from streamlearn.core.records import Frame
    from streamlearn.sources import Inferred, Source


class Readout(StrEnum):
    """Whose predictions are scored."""

    SERVE = "serve"
    KEEP = "keep"


def evaluate(
    file: File,
    label: Label = None,
    stream: StreamColumn = None,
    time: Time = None,
    ignore: Ignore = None,
    keep: Keep = None,
    image: Images = None,
    order: Order = None,
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
    readout: Annotated[
        Readout,
        typer.Option(
            help="Whose predictions are scored. serve: for the events that come next, it follows "
            "the stream. keep: for events of any time, it doesn't forget."
        ),
    ] = Readout.SERVE,
    classes_over_time: Annotated[
        bool,
        typer.Option(
            "--classes-over-time",
            help="Hold out every tenth labelled event of each class and ask for it again: what is "
            "still known of all classes at the end, and what was forgotten.",
        ),
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Draw accuracy over time to a .png, .svg or .pdf, drifts and new classes marked.",
            show_default=False,
        ),
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Run others on the same events, at the same steps: sklearn, river (slow), or "
            "sklearn,river. Or single ones: sgd, mlp, hoeffding-tree, arf, srp (slowest), "
            "leveraging-bagging, softmax, multinomial-nb.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Test, then learn a file, event by event, as a worker would, without Kafka.

    Every event is predicted before its label is learned, so no event is ever tested on what was
    learned from it. Accuracy is shown beside what costs nothing: predicting the last label
    (no-change), or the most frequent one (majority). What the columns were taken for is said.

    Example: streamlearn evaluate pumps.csv --label state --stream pump
    """
    from streamlearn.cli.figures import show
    from streamlearn.core.settings import LearnerSettings
    from streamlearn.evaluation import Timeline, check_peers, frame_events
    from streamlearn.evaluation import evaluate as run
    from streamlearn.evaluation.plot import check_plot, draw
    from streamlearn.runtime.warm_up import warm_up
    from streamlearn.sources import open_source

    settings = LearnerSettings(seed=seed, step_events=step)
    peers = tuple(name.strip() for name in (compare or "").split(",") if name.strip())
    check_peers(peers)
    timeline = None
    if plot is not None:
        check_plot(plot)
        timeline = Timeline(readout.value)
    notices = Console(stderr=True)
    with open_source(
        file,
        label=label,
        stream=stream,
        time=time,
        ignore=tuple(ignore or ()),
        keep=tuple(keep or ()),
        images=tuple(image or ()),
        order=order,
        frame_events=frame_events(step),
    ) as source:
        require_label(source.inferred)
        with notices.status("compiling the inner loops (half a minute, the first time only)"):
            warm_up(settings)
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[said]}"),
            TimeElapsedColumn(),
            console=notices,
            transient=True,
        ) as progress:
            result = run(
                source.frames(),
                settings,
                watch=_Watch(progress, source),
                readout=readout.value,
                classes_over_time=classes_over_time,
                compare=peers,
                timeline=timeline,
            )
    if plot is not None and timeline is not None:
        title = f"{_shown(file)}, step {step}"
        draw(plot, timeline, result.classes_over_time, title=title)
        notices.print(f"drawn: {plot}", style="dim", markup=False, highlight=False)
    if not as_json:
        show(result, source.inferred, Console())
        return
    for line in source.inferred.lines():
        notices.print(line, style="dim", markup=False, highlight=False)
    typer.echo(json.dumps(result.as_json(), allow_nan=False))


def _shown(file: str) -> str:
    """A file's name and its folder's, since many a file is called data.npz."""
    return "standard input" if file == "-" else "/".join(Path(file).resolve().parts[-2:])


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
