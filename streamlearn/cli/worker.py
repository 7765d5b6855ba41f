"""`streamlearn worker`: learn what is fed, publish the models."""

import logging
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from streamlearn.cli.interrupts import check, end_at_once_on
from streamlearn.cli.options import Bootstrap, ConfigFile, Prefix, load_config


def worker(
    config: ConfigFile = None,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    group: Annotated[
        str | None,
        typer.Option(
            help="Workers of one group share the partitions [STREAMLEARN_WORKER__GROUP].",
            show_default=False,
        ),
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="Where /metrics is; 0: any free one, see the log "
            "[STREAMLEARN_WORKER__METRICS_PORT; 9464].",
            show_default=False,
        ),
    ] = None,
    state_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder of this worker's state, one for each worker "
            "[STREAMLEARN_WORKER__STATE_DIR; state].",
            show_default=False,
        ),
    ] = None,
    instance: Annotated[
        str | None,
        typer.Option(
            help="A name for a worker that is restarted in place: it goes on without a rebalance, "
            "but others wait 6 s for its partitions when it leaves "
            "[STREAMLEARN_WORKER__INSTANCE].",
            show_default=False,
        ),
    ] = None,
    checkpoint_interval: Annotated[
        float | None,
        typer.Option(
            help="Seconds between checkpoints [STREAMLEARN_WORKER__CHECKPOINT_INTERVAL_S; 5].",
            show_default=False,
        ),
    ] = None,
    accept_gap: Annotated[
        bool,
        typer.Option(
            "--accept-gap",
            help="Where states and log don't fit, go on with the models as they are. Costs: events "
            "that they don't cover and that are gone are never learned. Stop the group's other "
            "workers first.",
        ),
    ] = False,
    from_earliest: Annotated[
        bool,
        typer.Option(
            "--from-earliest",
            help="Forget all states and learn again from the first event that is left. Costs: what "
            "was learned from events that are gone; versions begin at 1 again; the time. Stop the "
            "group's other workers first.",
        ),
    ] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Log more.")] = False,
) -> None:
    """Learn what is fed and publish the models, until Ctrl-C or SIGTERM.

    Start as many as you like, each with a --state-dir of its own; they share the partitions.
    What happens is logged on stderr. A worker that was killed goes on where it was.

    --accept-gap and --from-earliest are for a worker that stopped with that advice: start one
    worker with it, once; then all as usual.
    """
    end_at_once_on(signal.SIGINT)  # until its loop listens there is nothing to end in order
    check()
    settings = load_config(
        config,
        kafka__bootstrap=bootstrap,
        topics__prefix=prefix,
        worker__group=group,
        worker__metrics_port=metrics_port,
        worker__state_dir=state_dir,
        worker__instance=instance,
        worker__checkpoint_interval_s=checkpoint_interval,
    )
    from streamlearn.errors import InputError

    if accept_gap and from_earliest:
        raise InputError("--accept-gap keeps the states, --from-earliest forgets them: give one")
    from streamlearn.runtime.amends import Decision
    from streamlearn.runtime.logs import set_up
    from streamlearn.runtime.worker import run

    decision = Decision.ACCEPT_GAP if accept_gap else None
    set_up(sys.stderr, logging.DEBUG if verbose else logging.INFO)
    run(settings, Decision.FROM_EARLIEST if from_earliest else decision)
