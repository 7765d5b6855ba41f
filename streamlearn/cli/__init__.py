"""The command line: flags and environment become a Config, errors become exit codes.

One file a command group. A command's module is imported when it is run, not before, so that
`streamlearn --help` is there at once; the table below is all that is known until then.
"""

import importlib
from dataclasses import dataclass
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

EPILOG = (
    "Exit codes: 0 done. 1 Kafka or a stored state failed at run time. 2 a flag, setting or file "
    "is wrong. 130 stopped by Ctrl-C. Settings: STREAMLEARN_SECTION__KEY or -c streamlearn.toml; "
    "STREAMLEARN_BOOTSTRAP names the broker; STREAMLEARN_DEBUG=1 shows tracebacks."
)


# plain help: rich would cut the variables' long names where a terminal is narrow
PLAIN: dict[str, Any] = {
    "add_completion": False,
    "pretty_exceptions_enable": False,
    "rich_markup_mode": None,
}


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a command lives, and the line that `--help` shows for it."""

    module: str
    attribute: str  # a function, or a typer.Typer with commands of its own
    help: str


COMMANDS = {
    "demo": Entry("demo", "demo", "See the whole loop work on a real broker of its own."),
    "evaluate": Entry("evaluate", "evaluate", "Test, then learn a file, without Kafka."),
    "feed": Entry("feed", "feed", "Send a file's events."),
    "worker": Entry("worker", "worker", "Learn what is fed and publish the models."),
    "subscribe": Entry("subscribe", "subscribe", "Hold the newest model, show it, predict."),
    "representatives": Entry(
        "representatives", "representatives", "Show the events that stand for a stream's past."
    ),
    "suggest": Entry("suggest", "suggest", "Say which events to have labelled."),
    "history": Entry("past", "history", "List a stream's published versions."),
    "replay": Entry("past", "replay", "Rebuild a past model from the log."),
    "verify": Entry("past", "verify", "Compare what was published with the log."),
    "rollback": Entry("past", "rollback", "Make a stream go on from an old version."),
    "topics": Entry("topics", "topics", "List, compare and create the topics."),
    "access": Entry("access", "access", "List and grant what each role may do on Kafka."),
    "keys": Entry("keys", "keys", "Make the keys that sign models."),
    "broker": Entry("broker", "broker", "Run a local Kafka in the foreground."),
    "doctor": Entry("doctor", "doctor", "Check this machine, the broker and the topics."),
}


class LazyGroup(TyperGroup):
    """Commands by name, imported when one of them is run."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, entry in COMMANDS.items():
            self.commands[name] = TyperCommand(name, help=entry.help, callback=_nothing)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, stub, rest = super().resolve_command(ctx, args)
        return name, load(name) if name in COMMANDS else stub, rest


def _nothing() -> None:
    """Stands for a command that has not been imported."""


def load(name: str) -> Any:
    """Import the command `name` and build it."""
    entry = COMMANDS[name]
    found = getattr(importlib.import_module(f"{__name__}.{entry.module}"), entry.attribute)
    if not isinstance(found, typer.Typer):
        alone = typer.Typer(**PLAIN)
        alone.command(name=name, epilog=EPILOG)(found)
        found = alone
    return typer.main.get_command(found)


app = typer.Typer(
    cls=LazyGroup,
    help="A classifier that never stops learning, on Kafka.",
    epilog=EPILOG,
    no_args_is_help=True,
    **PLAIN,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"streamlearn {version('streamlearn')}")
        raise typer.Exit


@app.callback()
def _main(
    debug: bool = typer.Option(
        False, "--debug", help="Show tracebacks (STREAMLEARN_DEBUG=1 does, too)."
    ),
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version and end."
    ),
) -> None:
    """`debug` is read by `streamlearn.__main__`, which turns errors into exit codes."""
