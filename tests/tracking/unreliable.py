"""An MLflow server that can be killed, and a proxy in front of one that loses answers, breaks or hangs."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.conftest import wait_for

SETTINGS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


class Server:
    """An MLflow server on one port and one database, whatever happens to its process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        arguments = ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db", "--workers", "1"]
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *arguments, "--port", str(self.port)],
                cwd=self.folder,
                env={**os.environ, **SETTINGS, "TMPDIR": str(self.folder)},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_for(f"{self.address}/health", self.process)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to all processes of the server."""
        os.killpg(self.process.pid, number)
        if number == signal.SIGKILL:
            self.process.wait()


class Proxy:
    """Passes requests on to a server and does to them what `fault` says.

    ok; lose (the first answer to each request that changes something; the server has done what was asked);
    error (answers 500); hang (never answers).
    """

    def __init__(self, server: Server) -> None:
        self.fault = "ok"
        self.answered: set[str] = set()
        self.released = threading.Event()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler(self, server.port))
        self.http.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.released.set()
        self.http.shutdown()
        self.http.server_close()


def handler(proxy: Proxy, port: int) -> type[BaseHTTPRequestHandler]:
    """Return the handler of a proxy's requests."""

    class Handler(BaseHTTPRequestHandler):
        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.close_connection = True
            if proxy.fault == "hang":
                proxy.released.wait(60)
            elif proxy.fault == "error":
                self.answer(500, b"broken")
            else:
                is_lost = proxy.fault == "lose" and self.is_first_of_its_kind(body)
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                headers = {name: self.headers[name] for name in ("Content-Type",) if self.headers[name]}
                connection.request(self.command, self.path, body, headers)
                found = connection.getresponse()
                content = found.read()
                if not is_lost:
                    self.answer(found.status, content)

        def is_first_of_its_kind(self, body: bytes) -> bool:
            """Tell whether this changes something and is not the repetition, at another time, of the same change."""
            if self.command == "GET" or self.path.endswith("search") or "mlflow-artifacts" in self.path:
                return False
            content = {name: value for name, value in json.loads(body).items() if not name.endswith("_time")}
            key = self.path + json.dumps(content)
            is_first = key not in proxy.answered
            proxy.answered.add(key)
            return is_first

        def answer(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: Any) -> None:
            pass

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = pass_on

    return Handler
