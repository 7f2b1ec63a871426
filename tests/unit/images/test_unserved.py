"""A leased machine whose node never started powers itself off; no other machine does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from mesaform_images.builder import unserved

SYSTEMCTL = """\
#!/bin/sh
echo "$@" >> {log}
if [ "$1" = show ]; then echo {entered}; fi
"""
LEASED = {"role": "agent", "lease": {"lease_s": 1800}}


def serve_user_data(text: bytes) -> ThreadingHTTPServer:
    class Metadata(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.answer(b"a-token")

        def do_GET(self) -> None:
            assert self.headers[unserved.SESSION_HEADER] == "a-token"
            self.answer(text)

        def answer(self, content: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Metadata)
    Thread(target=server.serve_forever, daemon=True).start()
    return server


def with_systemctl(folder: Path, entered: str) -> Path:
    """A `systemctl` that says when the node became active; what it was called with is logged."""
    folder.mkdir(exist_ok=True)
    log = folder / "log"
    program = folder / "systemctl"
    program.write_text(SYSTEMCTL.format(log=log, entered=entered))
    program.chmod(0o755)
    return log


@pytest.mark.parametrize(
    ("user_data", "entered", "ends"),
    [
        (json.dumps(LEASED).encode(), "0", True),
        (json.dumps(LEASED).encode(), "81234567", False),
        (json.dumps({**LEASED, "lease": None}).encode(), "0", False),
        (b"#cloud-config\nruncmd: []\n", "0", False),
    ],
    ids=["leased", "served before", "of Terraform", "no node document"],
)
def test_only_a_leased_machine_without_a_node_ends(tmp_path, user_data, entered, ends):
    log, server = with_systemctl(tmp_path, entered), serve_user_data(user_data)
    try:
        endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        environ = {
            **os.environ,
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": endpoint,
        }
        subprocess.run(
            [sys.executable, "-I", unserved.__file__], env=environ, check=True, timeout=60
        )
    finally:
        server.shutdown()
    assert ("poweroff" in log.read_text()) is ends
