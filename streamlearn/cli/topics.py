"""`streamlearn topics list|diff|apply`: the topics as they are and as they should be."""

import typer
from rich.console import Console
from rich.table import Table

from streamlearn.cli import PLAIN
from streamlearn.cli.options import Bootstrap, ConfigFile, Prefix, load_config
from streamlearn.config import Config

topics = typer.Typer(
    help="List, compare and create the topics that topics/*.toml describe.",
    no_args_is_help=True,
    **PLAIN,
)


def _settings(config: ConfigFile, bootstrap: str | None, prefix: str | None) -> Config:
    return load_config(config, kafka__bootstrap=bootstrap, topics__prefix=prefix)


@topics.command("list")
def list_(config: ConfigFile = None, prefix: Prefix = None) -> None:
    """Show what each topic is for, with its key, value and settings. Needs no broker."""
    from streamlearn.topics import load

    settings = _settings(config, None, prefix).topics
    table = Table()
    table.add_column("topic", no_wrap=True)
    for title in ("partitions", "key", "value", "cleanup"):
        table.add_column(title)
    for spec in load(prefix=settings.prefix, partitions=settings.partitions):
        cleanup = spec.config.get("cleanup.policy", "")
        table.add_row(spec.full_name, str(spec.partitions), spec.key, spec.value, cleanup)
    Console().print(table)


@topics.command("diff")
def diff_(config: ConfigFile = None, bootstrap: Bootstrap = None, prefix: Prefix = None) -> None:
    """Compare the broker's topics with their specs; exit code 1 if they differ."""
    from streamlearn.runtime import admin
    from streamlearn.topics import load

    settings = _settings(config, bootstrap, prefix)
    specs = load(prefix=settings.topics.prefix, partitions=settings.topics.partitions)
    differences = admin.diff(settings.kafka, specs)
    for difference in differences:
        typer.echo(str(difference))
    if differences:
        typer.echo("mend it with `streamlearn topics apply`", err=True)
        raise typer.Exit(1)
    typer.echo(f"all {len(specs)} topics are as specified")


@topics.command("apply")
def apply_(config: ConfigFile = None, bootstrap: Bootstrap = None, prefix: Prefix = None) -> None:
    """Create missing topics and set differing settings. Doing it twice changes nothing."""
    from streamlearn.runtime import admin
    from streamlearn.topics import load

    settings = _settings(config, bootstrap, prefix)
    specs = load(prefix=settings.topics.prefix, partitions=settings.topics.partitions)
    changed = admin.apply(settings.kafka, specs, replication=settings.topics.replication)
    for difference in changed:
        done = "created" if difference.kind is admin.Difference.MISSING else "set"
        typer.echo(f"{done} {difference.topic} {difference.key}".rstrip())
    if not changed:
        typer.echo(f"all {len(specs)} topics are as specified")
