"""`streamlearn broker`: a local Kafka in the foreground."""

import signal
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from streamlearn.cli.options import ConfigFile, load_config
from streamlearn.errors import BrokerError


def broker(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 9092,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Where the data stays. Without it: a temporary folder, gone at the end."),
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Run a local Kafka in the foreground, with all topics, until Ctrl-C.

    One KRaft node on 127.0.0.1, from jars that Maven fetches once (or in Docker): for
    development and trying things out, not for production.
    """
    from streamlearn import topics
    from streamlearn.runtime import admin
    from streamlearn.runtime.broker import LocalBroker

    console = Console(stderr=True, highlight=False)
    settings = load_config(config)

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    local = LocalBroker(
        port=port,
        data_dir=data_dir,
        cache_dir=settings.broker.cache_dir,
        heap=settings.broker.heap,
        on_progress=lambda message: console.print(f"[dim]{message}[/]"),
    )
    try:
        with local:
            kafka = settings.kafka.model_copy(update={"bootstrap": local.bootstrap})
            specs = topics.load(
                prefix=settings.topics.prefix, partitions=settings.topics.partitions
            )
            admin.apply(kafka, specs, replication=settings.topics.replication)
            console.print(f"Kafka at [bold]{local.bootstrap}[/], log in {local.log_file}")
            console.print(f"export STREAMLEARN_BOOTSTRAP={local.bootstrap}")
            console.print("[dim]Ctrl-C ends it.[/]")
            code = local.wait()
            raise BrokerError(f"Kafka ended by itself with exit code {code}: {local.log_tail()}")
    except KeyboardInterrupt:
        console.print("stopped")
