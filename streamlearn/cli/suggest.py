"""`streamlearn suggest`: which unlabelled events would help a stream's model most."""

import json as json_text
from datetime import UTC, datetime
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
    from streamlearn.core.ask import Question
    from streamlearn.core.records import Frame

VALUES_SHOWN = 6  # of an event, in the table
CHARACTERS = 60  # of a text, in the table


def suggest(
    stream: Stream,
    n: Annotated[int, typer.Option("--n", min=1, help="How many events.")] = 10,
    partition: Partition = None,
    config: ConfigFile = None,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    json: Json = False,
) -> None:
    """Say which of a stream's recent unlabelled events a person should label, and why.

    Those that the model is least sure of, no two alike, out of the newest 1000 that wait. Send
    each answer to the topic labels, under the event's id; workers take it with
    worker.late_labels. Needs the workers' learner settings.
    """
    from streamlearn.core.ask import ask
    from streamlearn.runtime.past import Past

    settings = load_config(config, kafka__bootstrap=bootstrap, topics__prefix=prefix)
    with Past(settings) as past:
        frame = past.waiting(stream, partition)
        questions = () if frame is None else ask(past.model(stream, partition), frame, n)
    if json:
        rows = [] if frame is None else [_as_json(q, frame) for q in questions]
        waiting = 0 if frame is None else len(frame)
        print(json_text.dumps({"stream": stream, "waiting": waiting, "events": rows}))
    elif frame is None:
        typer.echo(f"{stream}: none of its recent events waits for a label")
    else:
        _show(stream, questions, frame)


def _as_json(question: "Question", frame: "Frame") -> dict[str, Any]:
    return {
        "event_id": question.event_id,
        "event_time": question.event_time_s,
        "predicted": question.predicted,
        "probability": question.probability,
        "why": question.why,
        "values": _values(question, frame),
    }


def _values(question: "Question", frame: "Frame") -> dict[str, float | str]:
    """What is known of the event, by column."""
    row = question.row
    numbers = zip(frame.columns, frame.numbers[row].tolist(), strict=True)
    values: dict[str, float | str] = {name: x for name, x in numbers if x == x}
    for name, column in frame.texts.items():
        text = column[row]
        if text is not None:
            values[name] = text
    return values


def _show(stream: str, questions: "tuple[Question, ...]", frame: "Frame") -> None:
    console = Console()
    title = f"{escape(stream)}: {len(questions)} of {len(frame)} events that wait for a label"
    table = Table(title=title, title_justify="left", title_style="", box=None, pad_edge=False)
    for name in ("id", "time (UTC)", "the model says"):
        table.add_column(name, no_wrap=True)
    table.add_column("why")
    table.add_column("values")
    for question in questions:
        said = "nothing yet" if question.predicted is None else str(question.predicted)
        if question.predicted is not None:
            said += f" {question.probability:.0%}"
        table.add_row(
            escape(question.event_id) or "(none)", _time(question.event_time_s), escape(said),
            escape(question.why), escape(_short(_values(question, frame))),
        )  # fmt: skip
    console.print(table)
    if not all(question.event_id for question in questions):
        console.print("events without an id cannot be labelled later: send one", style="dim")


def _time(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(" ", "seconds")[:19]
    except (ValueError, OverflowError, OSError):  # a clock that is no calendar's
        return f"{seconds:g}"


def _short(values: dict[str, float | str]) -> str:
    shown = [
        f"{name}: {value[:CHARACTERS]}" if isinstance(value, str) else f"{name}={value:.4g}"
        for name, value in list(values.items())[:VALUES_SHOWN]
    ]
    more = len(values) - VALUES_SHOWN
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
