"""`streamlearn broker`: a local Kafka in the foreground."""

import signal
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from streamlearn.cli.interrupts import check, interrupt_on
from streamlearn.cli.options import ConfigFile, load_config
from streamlearn.errors import BrokerError


def broker(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 9092,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Where the data stays. Without it: a temporary folder, gone at the end."),
    ] = None,
    secure: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="With TLS, users and least rights. Certificates, passwords, data, and a settings "
            "file for each role are made in DIR where they are missing.",
            show_default=False,
        ),
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Run a local Kafka in the foreground, with all topics, until Ctrl-C.

    One KRaft node on 127.0.0.1, from jars that Maven fetches once (or in Docker): for
    development and trying things out, not for production.
    """
    from streamlearn.errors import InputError

    if secure is not None and data_dir is not None:
        raise InputError("--secure DIR keeps its data in DIR/kafka; leave --data-dir out")
    from streamlearn import topics
    from streamlearn.runtime import access, admin
    from streamlearn.runtime.broker import LocalBroker
    from streamlearn.runtime.secure_folder import SecureFolder

    console = Console(stderr=True, highlight=False)
    settings = load_config(config)
    interrupt_on(signal.SIGTERM)
    folder = None if secure is None else SecureFolder(secure)
    local = LocalBroker(
        port=port,
        data_dir=data_dir,
        cache_dir=settings.broker.cache_dir,
        heap=settings.broker.heap,
        secure=folder,
        on_progress=lambda message: console.print(f"[dim]{message}[/]"),
    )
    try:
        with local:
            specs = topics.load(
                prefix=settings.topics.prefix, partitions=settings.topics.partitions
            )
            admin.apply(local.kafka, specs, replication=settings.topics.replication)
            console.print(f"Kafka at [bold]{local.bootstrap}[/], log in {local.log_file}")
            if folder is None:
                console.print(f"export STREAMLEARN_BOOTSTRAP={local.bootstrap}")
            else:
                users = [(role, role) for role in access.roles()]
                access.apply(local.kafka, users, specs, settings.worker.group)
                folder.write_settings(local.bootstrap, specs)
                files = ", ".join(folder.settings_file(user).name for user in folder.users())
                console.print(f"settings in {folder.path}: {files}", soft_wrap=True)
                console.print(
                    f"streamlearn worker -c {folder.settings_file('worker')}", soft_wrap=True
                )
            console.print("[dim]Ctrl-C ends it.[/]")
            check()
            code = local.wait()
            raise BrokerError(f"Kafka ended by itself with exit code {code}: {local.log_tail()}")
    except KeyboardInterrupt:
        console.print("stopped")
