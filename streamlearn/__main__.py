"""The program `streamlearn`: runs a command and turns its errors into exit codes."""

import signal
import sys

from streamlearn.cli import app
from streamlearn.cli.interrupts import interrupt_on, interrupted
from streamlearn.cli.options import debug_wanted
from streamlearn.errors import BrokerError, StateError, StreamlearnError


def main() -> None:
    """Run the command line; a mistake costs one clear message on stderr, never a traceback."""
    interrupt_on(signal.SIGINT)
    try:
        app(prog_name="streamlearn")
    except StreamlearnError as error:
        if debug_wanted(sys.argv):
            raise
        print(f"streamlearn: {error}", file=sys.stderr)
        sys.exit(1 if isinstance(error, BrokerError | StateError) else 2)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception:
        if debug_wanted(sys.argv) or not interrupted():
            raise
        sys.exit(130)  # what an interrupt broke


if __name__ == "__main__":
    main()
