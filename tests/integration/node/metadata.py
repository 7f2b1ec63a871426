"""Metadata service for tests: IMDSv2 over HTTP, with tokens that it checks."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class MetadataServer:
    """A context manager. `endpoint` is the value of AWS_EC2_METADATA_SERVICE_ENDPOINT.

    `values` are the texts by path below /latest/.
    """

    def __init__(self, values: Mapping[str, str], host: str = "127.71.0.1") -> None:
        self.values = dict(values)
        self.tokens: set[str] = set()
        self.requested_paths: list[str] = []
        self.failures: list[int] = []  # statuses of the next answers
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                if self.is_refused():
                    return
                if (
                    self.path != "/latest/api/token"
                    or "X-aws-ec2-metadata-token-ttl-seconds" not in self.headers
                ):
                    self.answer(400)
                    return
                token = uuid.uuid4().hex
                outer.tokens.add(token)
                self.answer(200, token)

            def do_GET(self) -> None:
                outer.requested_paths.append(self.path)
                if self.is_refused():
                    return
                if self.headers.get("X-aws-ec2-metadata-token") not in outer.tokens:
                    self.answer(401)
                    return
                value = outer.values.get(self.path.removeprefix("/latest/"))
                self.answer(404) if value is None else self.answer(200, value)

            def is_refused(self) -> bool:
                if outer.failures:
                    self.answer(outer.failures.pop(0))
                    return True
                return False

            def answer(self, status: int, text: str = "") -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: Any) -> None:
                return

        self._server = ThreadingHTTPServer((host, 0), Handler)
        self.endpoint = f"http://{host}:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


INSTANCE = {
    "meta-data/instance-id": "i-0abc",
    "meta-data/instance-type": "m5.large",
    "meta-data/placement/availability-zone": "us-east-1b",
    "meta-data/local-ipv4": "127.71.0.9",
    "meta-data/instance-life-cycle": "spot",
    "user-data": '{"version":1}',
}
