"""`streamlearn keys new|show`: who may sign what subscribers believe."""

from pathlib import Path
from typing import Annotated

import typer

from streamlearn.cli import PLAIN

keys = typer.Typer(
    help="Make and look at the keys that sign models.",
    no_args_is_help=True,
    **PLAIN,
)


@keys.command("new")
def new(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where the two files go.", show_default=False)
    ],
) -> None:
    """Make an Ed25519 pair: signing_key.pem for workers, public_key.pem for subscribers.

    The first is a secret (mode 0600). Files that are there are never replaced.
    """
    from streamlearn.runtime.keys import look_at, new_pair

    private, public = new_pair(folder)
    typer.echo(f"key {look_at(public).key_id}")
    typer.echo(f"{private}: secret, for workers: STREAMLEARN_WORKER__SIGNING_KEY={private}")
    typer.echo(f"{public}: for subscribers: STREAMLEARN_SUBSCRIBER__PUBLIC_KEYS={public}")


@keys.command("show")
def show(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Key files.", show_default=False)
    ],
) -> None:
    """Tell what a key file is, its id, and its public half; never the secret one."""
    from streamlearn.runtime.keys import look_at

    for file in files:
        found = look_at(file)
        kind = "private" if found.private else "public"
        warning = ", open to others: chmod 600 it" if found.open_to_others else ""
        typer.echo(f"{file}: {kind}, key {found.key_id}{warning}")
        typer.echo(found.public_pem, nl=False)
