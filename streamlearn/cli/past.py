"""`streamlearn replay|verify|history|rollback`: what the log says of the past, and going back."""

import json as json_text
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
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
    from streamlearn.config import Config
    from streamlearn.runtime.history import Published
    from streamlearn.runtime.past import Past
    from streamlearn.runtime.replay import Step


def _settings(config: Path | None, bootstrap: str | None, prefix: str | None) -> "Config":
    return load_config(config, kafka__bootstrap=bootstrap, topics__prefix=prefix)


def replay(
    stream: Annotated[str, typer.Option(help="The stream.", show_default=False)],
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE", help="Where the model goes (safetensors).", show_default=False
        ),
    ],
    until: Annotated[
        str | None,
        typer.Option(
            metavar="OFFSET|TIME|vVERSION",
            help="The last event that counts: its offset, Kafka's time (ISO 8601, UTC), or the "
            "version that it made [the whole log].",
            show_default=False,
        ),
    ] = None,
    partition: Partition = None,
    config: ConfigFile = None,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    json: Json = False,
) -> None:
    """Rebuild any past model of a stream from the events log alone, into a file.

    With the workers' learner settings the model is theirs, to the bit. Exits with 1 if it is not
    what was published as that version, or where the log was cut and nothing proves that it is;
    the file is written all the same.
    """
    from streamlearn.runtime.past import Past
    from streamlearn.runtime.replay import Until
    from streamlearn.wire import model_codec

    ending, console = Until.parse(until), Console(highlight=False, soft_wrap=True)
    with Past(_settings(config, bootstrap, prefix)) as past:
        replayed = past.replayed(stream, ending, partition)
        proven = past.published_as(replayed)
        model = replayed.learner.model()
        about = {
            "topic": past.events,
            "partition": replayed.partition,
            "first_offset": replayed.low,
            "offset": replayed.offset,
            "events": replayed.learner.n_events,
            "refused": replayed.refused,
            "log_may_be_cut": replayed.cut,
            "same_as_published": proven,
        }
        write(out, model_codec.encode(model, about))
    if json:
        print(json_text.dumps({"stream": stream, "version": model.version, "hash": model.hash}
                              | about | {"file": str(out)}))  # fmt: skip
    else:
        console.print(
            f"{stream} version {model.version}, {model.hash[:12]}: {replayed.learner.n_events} "
            f"events up to offset {replayed.offset} of {past.events} partition "
            f"{replayed.partition}, in {out}"
        )
        console.print(_PROOF[proven])
    if replayed.cut and not proven:
        typer.echo(
            f"streamlearn: {past.events} partition {replayed.partition} begins at offset "
            f"{replayed.low}: retention removed what lay before it. If events of {stream!r} were "
            "among them, this is not the model that the worker had, nor are its versions the same; "
            "keep events longer (retention.ms of the events topic)",
            err=True,
        )
    if proven is False or (replayed.cut and not proven):
        raise typer.Exit(1)


_PROOF = {
    True: "the same, to the bit, as what was published as that version",
    False: "NOT what was published as that version: do learner settings differ?",
    None: "no published hash of that version is left to compare with",
}


def write(file: Path, content: bytes) -> None:
    """All of the file, or InputError."""
    from streamlearn.errors import InputError

    try:
        file.write_bytes(content)
    except OSError as error:
        raise InputError(f"{file} cannot be written: {error.strerror}") from None


def verify(
    stream: Annotated[
        str | None, typer.Option(help="Only this stream [all].", show_default=False)
    ] = None,
    config: ConfigFile = None,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    json: Json = False,
) -> None:
    """Compare the hashes that workers published with a replay of the log, version by version.

    Exits with 1 on any difference, and where retention has cut the log so that nothing can be said.
    Needs the workers' learner settings.
    """
    from streamlearn.runtime.audit import Result
    from streamlearn.runtime.past import Past

    with Past(_settings(config, bootstrap, prefix)) as past:
        verdicts = list(past.audit(stream))
        refused, why = past.found.refused, past.found.why
    same = all(verdict.result is Result.SAME for verdict in verdicts)
    if json:
        print(json_text.dumps({"same": same, "refused": refused,
                               "streams": [asdict(verdict) for verdict in verdicts]}))  # fmt: skip
    elif not verdicts:
        typer.echo("nothing was published, or what was is no longer retained")
    else:
        table = Table("stream", "partition", "versions", "same", "result", box=box.SIMPLE)
        for v in verdicts:
            versions = f"{v.published} ({v.first} to {v.last})"
            table.add_row(v.stream, str(v.partition), versions, str(v.same), v.result.value)
        Console(markup=False).print(table)
        for v in verdicts:
            if v.detail:
                typer.echo(f"{v.stream}: {v.detail}")
        _print_refused(refused, why)
    if not same:
        raise typer.Exit(1)


def _print_refused(refused: int, why: str) -> None:
    if refused:
        typer.echo(f"{refused} messages were not looked at; the last one: {why}", err=True)


def history(
    stream: Stream,
    accuracy: Annotated[
        bool,
        typer.Option(
            "--accuracy",
            help="Learn the stream again, for each version's accuracy on its events before it "
            "learned them, and to check its hash's place in the log.",
        ),
    ] = False,
    partition: Partition = None,
    config: ConfigFile = None,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    json: Json = False,
) -> None:
    """List the published versions of a stream that are still retained, newest last.

    Under load several versions are published as one; a new worker may publish one again.
    """
    from streamlearn.runtime.past import Past

    with Past(_settings(config, bootstrap, prefix)) as past:
        number = past.partition_of(stream, partition)
        entries = [e for e in past.found.of(stream) if e.kind != "snapshot"]
        entries = [e for e in entries if e.partition == number]
        entries.sort(key=lambda e: (e.epoch, e.version, e.sent_s))
        steps = _steps(past, stream, number) if accuracy else {}
        refused, why = past.found.refused, past.found.why
        kinds = ["rollback" if past.is_rollback(entry) else entry.kind for entry in entries]
    before = [None, *entries[:-1]] if entries else []
    rows = [_row(*told, steps) for told in zip(entries, kinds, before, strict=True)]
    if json:
        print(json_text.dumps({"stream": stream, "versions": rows}))
        return
    table = Table(title=stream, box=None, padding=(0, 1, 0, 0))  # fits 80 columns
    for title in ("version", "epoch", "time (UTC)", "offset", "kind", "bytes", "accuracy", "hash"):
        table.add_column(
            title, justify="left" if title in ("kind", "hash") else "right", no_wrap=True
        )
    for row in rows:
        table.add_row(
            str(row["version"]), str(row["epoch"]), row["time"][:19], str(row["offset"]),
            row["kind"], str(row["bytes"]), _percent(row["accuracy"]), row["hash"][:8],
        )  # fmt: skip
    Console(markup=False).print(
        table
        if rows
        else f"nothing was published of {stream}, or what was is no longer retained; `replay` "
        "learns any version again from the log"
    )
    _print_refused(refused, why)


def _steps(past: "Past", stream: str, partition: int) -> "dict[int, Step]":
    from streamlearn.runtime.replay import Step, Until

    steps = (step for step in past.replay(stream, Until(), partition) if isinstance(step, Step))
    return {step.version: step for step in steps}


def _row(
    entry: "Published", kind: str, before: "Published | None", steps: "dict[int, Step]"
) -> dict[str, Any]:
    """One version; its accuracy is over all events since the version listed before it."""
    start = (
        entry.version if before is None or before.version >= entry.version else before.version + 1
    )
    own = steps.get(entry.version)
    known = own is not None and own.offset == entry.source_offset
    since = [steps[v] for v in range(start, entry.version + 1) if v in steps] if known else []
    return {
        "version": entry.version,
        "epoch": entry.epoch,
        "time": datetime.fromtimestamp(entry.sent_s, UTC).isoformat(" ", "milliseconds")[:23]
        if entry.sent_s == entry.sent_s
        else "",
        "offset": entry.source_offset,
        "kind": kind,
        "bytes": entry.bytes,
        "accuracy": _accuracy(since),
        "hash": entry.hash,
    }


def _accuracy(steps: "Iterable[Step]") -> float | None:
    labelled = sum(step.n_labelled for step in steps)
    return sum(step.n_correct for step in steps) / labelled if labelled else None


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def rollback(
    stream: Stream,
    to: Annotated[
        int, typer.Option(metavar="VERSION", min=1, help="The old version.", show_default=False)
    ],
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for the worker that does it.")
    ] = 30.0,
    partition: Partition = None,
    config: ConfigFile = None,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    json: Json = False,
) -> None:
    """Make a stream go on from an old version: its values become a new version.

    The old state is learned again from the log and sent as a message of the log; the worker takes
    it over when it gets there. Needs the workers' learner settings, and their signing key if they
    have one. What was learned since stays in the log: roll back to its version to undo.
    """
    from streamlearn.runtime.past import Past

    with Past(_settings(config, bootstrap, prefix)) as past:
        done = past.roll_back(stream, to, wait_s=wait, partition=partition)
        events = past.events
    if json:
        print(json_text.dumps({"stream": stream} | asdict(done)))
    elif done.version is None:
        typer.echo(
            f"{stream}: sent, offset {done.offset} of {events}; no worker has met it within "
            f"{wait:g} s. It takes place when one does, also after it was down"
        )
    else:
        typer.echo(f"{stream}: version {done.version} has the values of version {to}")
