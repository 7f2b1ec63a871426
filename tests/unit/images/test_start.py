"""The program that a build machine starts with: its URLs are secrets for the time of a job."""

from __future__ import annotations

import socket
import traceback

import pytest

from mesaform_images import start

SECRET = "X-Amz-Signature=0123456789abcdef"


def test_no_presigned_url_is_in_what_a_build_machine_prints(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _s: None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(OSError, match="refused") as refused:
        start.main(f"http://127.0.0.1:{port}/job.json?{SECRET}")
    printed = "".join(traceback.format_exception(refused.value)) + "".join(capfd.readouterr())
    assert "refused" in printed
    assert "Signature" not in printed
