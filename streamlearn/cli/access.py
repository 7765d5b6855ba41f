"""`streamlearn access list|apply`: what each role may do on Kafka."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from streamlearn.cli import PLAIN
from streamlearn.cli.options import Bootstrap, ConfigFile, Prefix, load_config
from streamlearn.config import Config

access = typer.Typer(
    help="What feeder, worker, subscriber, watcher and admin may do on Kafka.",
    no_args_is_help=True,
    **PLAIN,
)


def _settings(config: ConfigFile, bootstrap: str | None, prefix: str | None) -> Config:
    return load_config(config, kafka__bootstrap=bootstrap, topics__prefix=prefix)


@access.command("list")
def list_(config: ConfigFile = None, prefix: Prefix = None) -> None:
    """Show each role's rights, with the topics' full names. Needs no broker."""
    from streamlearn.runtime.access import rights, roles
    from streamlearn.topics import load

    settings = _settings(config, None, prefix)
    specs = load(prefix=settings.topics.prefix, partitions=settings.topics.partitions)
    table = Table()
    for title in ("role", "may", "on"):
        table.add_column(title)
    for role, entry in roles().items():
        table.add_section()
        table.add_row(role, entry.about, "")
        by_operation: dict[str, list[str]] = {}
        for right in rights(role, specs, settings.worker.group):
            by_operation.setdefault(right.operation, []).append(right.resource)
        for operation, resources in by_operation.items():
            table.add_row("", operation, "\n".join(resources))
    Console().print(table)


@access.command("apply")
def apply_(
    user: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROLE=USER",
            help="Who has that role; may be given several times [each role: the user of its name].",
            show_default=False,
        ),
    ] = None,
    config: ConfigFile = None,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
) -> None:
    """Grant each role's rights, as ACLs, to its user. Doing it twice changes nothing.

    Needs a super user's settings, or one's with Alter on the cluster. Nothing is taken away.
    """
    from streamlearn.errors import InputError
    from streamlearn.runtime import access
    from streamlearn.topics import load

    settings = _settings(config, bootstrap, prefix)
    specs = load(prefix=settings.topics.prefix, partitions=settings.topics.partitions)
    known = access.roles()
    users: list[tuple[str, str]] = [(role, role) for role in known]
    if user:
        users = []
        for given in user:
            role, _, name = given.partition("=")
            if role not in known or not name:
                raise InputError(f"--user {given}: give ROLE=USER, a role of {', '.join(known)}")
            users.append((role, name))
    for line in access.apply(settings.kafka, users, specs, settings.worker.group):
        typer.echo(line)
