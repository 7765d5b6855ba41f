"""Serves /metrics to Prometheus, from a thread of its own."""

import threading
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server

from streamlearn.errors import ConfigError


class MetricsServer:
    """Serves a registry at /metrics; `port` 0 takes a free one, `url` says which.

    ConfigError where nobody can listen there.
    """

    def __init__(self, registry: CollectorRegistry, *, host: str, port: int) -> None:
        self._server: WSGIServer
        self._thread: threading.Thread
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except OSError as error:
            raise ConfigError(
                f"metrics cannot be served at {host}:{port} ({error.strerror}); choose another "
                "--metrics-port, 0 takes any free one"
            ) from None
        self.port: int = self._server.server_port
        self.url = f"http://{host}:{self.port}/metrics"

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
