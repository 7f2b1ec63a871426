"""Files of a local cloud: any bytes in each of them, and a start afterwards.

The files are the account, `endpoint.json`, the credentials, the faults and the daemon's pid and
port. The cloud is one of its own, so that the cluster under test keeps its account. A start may
fail once, with an error that names what was set aside; the next one must serve.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import boto3

from mesaform.common.errors import MesaformError
from mesaform.common.records import Unreadable
from mesaform.localcloud import daemon
from mesaform.localcloud.endpoint_file import ENDPOINT
from mesaform.localcloud.layout import Layout
from mesaform.localcloud.operator_credentials import read_credentials
from tests.fuzz.exchange import Answer
from tests.fuzz.inputs import Stored

BUCKET = "files"


class LocalFiles:
    """A local cloud whose files are written. It starts with the first input."""

    def __init__(self, root: Path) -> None:
        self._layout = Layout(root)

    def close(self) -> None:
        """End the local cloud. Idempotent."""
        if self._layout.root.exists():
            daemon.stop(self._layout.root)

    def perform(self, stored: Stored) -> Answer:
        """Write the bytes into every file of a cloud that was killed, and start it.

        Raises:
            AssertionError: it does not serve, or unreadable bytes are not kept.

        """
        running = self._start()
        self._write_account(running.url)
        self._require_found(stored.data, running)
        os.kill(running.pid, signal.SIGKILL)
        daemon.stop(self._layout.root)
        assert self._layout.account_file.exists(), "no account, so this proves nothing"
        for path in self._files():
            path.write_bytes(stored.data)
        with contextlib.suppress(MesaformError):  # it names the account that is set aside
            self._start()
        running = self._start()
        self._write_account(running.url)
        return Answer(200)

    def _start(self) -> daemon.Running:
        self._layout.root.mkdir(exist_ok=True)
        return daemon.start(self._layout.root, port=0)

    def _write_account(self, url: str) -> None:
        """Create a bucket: the endpoint serves its operator, and writes the account."""
        credentials = read_credentials(self._layout)
        client = boto3.client(
            "s3",
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id=credentials.access_key_id,
            aws_secret_access_key=credentials.secret_access_key,
        )
        client.create_bucket(Bucket=BUCKET)

    def _require_found(self, data: bytes, running: daemon.Running) -> None:
        """The running cloud is found although its `endpoint.json` cannot be read."""
        if not isinstance(ENDPOINT.decode(data), Unreadable):
            return
        self._layout.endpoint.write_bytes(data)
        known = daemon.find(self._layout.root)
        assert known is not None, "the running cloud is not found"
        assert (known.url, known.pid) == (running.url, running.pid), known

    def _files(self) -> tuple[Path, ...]:
        layout = self._layout
        return (
            layout.account_file,
            layout.credentials,
            layout.endpoint,
            layout.faults,
            layout.pid,
            layout.port,
        )
