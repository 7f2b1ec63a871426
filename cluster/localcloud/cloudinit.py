"""A small cloud-init for base images: `write_files` and `runcmd` of a `#cloud-config` written as JSON, which is YAML.

Paths below the places that belong to Mesaform lie in the machine's own root (`MESAFORM_ROOT`); commands get that variable.
Like a real machine, this one goes on running when cloud-init is done, and ends in order on SIGTERM.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

HEADER = "#cloud-config"
OWN_PLACES = ("/opt/mesaform", "/var/lib/mesaform")


class BadUserDataError(Exception):
    """The user data cannot be used; the text says why."""


def parse(text: str) -> dict[str, Any]:
    """The document after the header; empty when the user data is for somebody else."""
    first, _, rest = text.partition("\n")
    if first.strip() != HEADER:
        return {}
    try:
        document = json.loads(rest)
    except ValueError as error:
        raise BadUserDataError(
            f"{HEADER} is not JSON, which is the only YAML this cloud-init reads: {error}"
        ) from None
    if not isinstance(document, dict):
        raise BadUserDataError(f"{HEADER} is not an object")
    if unknown := sorted(set(document) - {"write_files", "runcmd"}):
        log(f"ignored: {', '.join(unknown)}")
    return document


def place(path: str, root: Path) -> Path:
    """Where a path of the machine lies on this host.

    Raises:
        BadUserDataError: it is outside of what belongs to the machine.

    """
    target = os.path.normpath(path)
    if not any(target == own or target.startswith(own + "/") for own in OWN_PLACES):
        raise BadUserDataError(f"write_files: {path} is not below {' or '.join(OWN_PLACES)}")
    return root / target.lstrip("/")


def content_of(item: dict[str, Any]) -> bytes:
    """A file's content, decoded as its `encoding` says."""
    text, encoding = str(item.get("content", "")), item.get("encoding")
    if encoding in {"b64", "base64"}:
        return base64.b64decode(text)
    if encoding in {None, "", "text/plain"}:
        return text.encode()
    raise BadUserDataError(f"write_files: encoding {encoding!r} is not known; use b64")


def write_files(document: dict[str, Any], root: Path) -> None:
    for item in document.get("write_files", []):
        target = place(str(item["path"]), root)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content_of(item))
        target.chmod(int(str(item.get("permissions", "0644")), 8))
        log(f"wrote {item['path']}")


def run_commands(document: dict[str, Any], folder: Path) -> int:
    """Run all commands in order, as cloud-init does whatever each returns; how many failed."""
    failed = 0
    for command in document.get("runcmd", []):
        log(f"runcmd: {command if isinstance(command, str) else ' '.join(map(str, command))}")
        arguments = (
            ["/bin/sh", "-c", command]
            if isinstance(command, str)
            else [str(part) for part in command]
        )
        try:
            code = subprocess.run(
                arguments, cwd=folder, stdin=subprocess.DEVNULL, check=False
            ).returncode
        except OSError as error:
            log(f"cannot run: {error}")
            code = 127
        if code:
            log(f"runcmd: exit code {code}")
            failed += 1
    return failed


def user_data() -> str:
    """The machine's user data, from its metadata service."""
    base = os.environ["AWS_EC2_METADATA_SERVICE_ENDPOINT"]
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    ask = urllib.request.Request(  # noqa: S310
        f"{base}/latest/api/token",
        method="PUT",
        headers={"X-aws-ec2-metadata-token-ttl-seconds": "300"},
    )
    with opener.open(ask, timeout=10) as answer:
        token = answer.read().decode()
    ask = urllib.request.Request(  # noqa: S310
        f"{base}/latest/user-data", headers={"X-aws-ec2-metadata-token": token}
    )
    try:
        with opener.open(ask, timeout=10) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return ""
        raise


def log(text: str) -> None:
    sys.stdout.write(f"cloud-init: {text}\n")
    sys.stdout.flush()


def work(root: Path, folder: Path) -> None:
    """Once a machine: a reboot does not run it again."""
    done = folder / "cloud-init.done"
    if done.exists():
        log("already done in an earlier boot")
        return
    try:
        document = parse(user_data())
        write_files(document, root)
        failed = run_commands(document, folder)
    except (BadUserDataError, OSError, KeyError, ValueError) as error:
        log(f"failed: {error}")
        return
    done.touch()
    log(f"finished, {failed} commands failed" if failed else "finished")


def main() -> None:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    root, folder = Path(os.environ["MESAFORM_ROOT"]), Path(os.environ["MESAFORM_MACHINE_DIR"])
    root.mkdir(parents=True, exist_ok=True)
    os.environ.pop("PYTHONPATH", None)  # commands must not find this program's own code
    threading.Thread(target=work, args=(root, folder), daemon=True, name="work").start()
    while not stop.wait(
        0.5
    ):  # without a timeout a signal that comes just before the wait would be seen by nobody
        pass
    log("power off")
    os._exit(0)
