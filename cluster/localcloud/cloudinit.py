"""A small cloud-init for base images: `write_files` and `runcmd` of a `#cloud-config` in JSON.

Paths below Mesaform's own folders are in the machine's root (`MESAFORM_ROOT`); commands have that
variable. As on a real machine the process goes on after cloud-init and ends in order on SIGTERM.
What it prints is the machine's console.
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

from mesaform.common.json_types import Json, JsonObject, as_list, as_object

HEADER = "#cloud-config"
OWN_FOLDERS = ("/opt/mesaform", "/var/lib/mesaform")
"""The folders of a machine that exist; everything else is the host's."""
SIGNAL_POLL_S = 0.5
"""A signal that comes just before a wait without a time-out would be missed."""
CALL_TIMEOUT_S = 10
TOKEN_TTL_S = 300
CANNOT_RUN = 127
"""A shell's exit code for a command that cannot be started."""


class BadUserDataError(Exception):
    """The user data cannot be used; the message says why."""


def parse(text: str) -> JsonObject:
    """The document after the header; empty when the user data is not a cloud-config.

    Raises:
        BadUserDataError: it is not a JSON object.

    """
    first, _, rest = text.partition("\n")
    if first.strip() != HEADER:
        return {}
    try:
        document = json.loads(rest)
    except ValueError as error:
        raise BadUserDataError(
            f"{HEADER} is not JSON, the only form of YAML that is read here: {error}"
        ) from None
    if not isinstance(document, dict):
        raise BadUserDataError(f"{HEADER} is not an object")
    if unknown := sorted(set(document) - {"write_files", "runcmd"}):
        log(f"ignored: {', '.join(unknown)}")
    return document


def place(path: str, root: Path) -> Path:
    """The path on this host of a path of the machine.

    Raises:
        BadUserDataError: it is not in a folder of the machine's own.

    """
    target = os.path.normpath(path)
    if not any(target == own or target.startswith(own + "/") for own in OWN_FOLDERS):
        raise BadUserDataError(f"write_files: {path} is not below {' or '.join(OWN_FOLDERS)}")
    return root / target.lstrip("/")


def content_of(item: JsonObject) -> bytes:
    """A file's content, decoded as its `encoding` says.

    Raises:
        BadUserDataError: the encoding is not known.

    """
    text, encoding = str(item.get("content", "")), item.get("encoding")
    if encoding in {"b64", "base64"}:
        return base64.b64decode(text)
    if encoding in {None, "", "text/plain"}:
        return text.encode()
    raise BadUserDataError(f"write_files: encoding {encoding!r} is not known; use b64")


def write_files(document: JsonObject, root: Path) -> None:
    """Write the document's files below `root`."""
    for entry in as_list(document.get("write_files")):
        item = as_object(entry)
        target = place(str(item["path"]), root)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content_of(item))
        target.chmod(int(str(item.get("permissions", "0644")), 8))
        log(f"wrote {item['path']}")


def run_commands(document: JsonObject, folder: Path) -> int:
    """Run all commands in order, whatever each returns, as cloud-init does; how many failed."""
    codes = [_run(command, folder) for command in as_list(document.get("runcmd"))]
    return sum(code != 0 for code in codes)


def _run(command: Json, folder: Path) -> int:
    """Run one command, a shell line or a list of arguments; its exit code."""
    if isinstance(command, str):
        arguments = ["/bin/sh", "-c", command]
        log(f"runcmd: {command}")
    else:
        arguments = [str(part) for part in as_list(command)]
        log(f"runcmd: {' '.join(arguments)}")
    try:
        finished = subprocess.run(arguments, cwd=folder, stdin=subprocess.DEVNULL, check=False)
        code = finished.returncode
    except OSError as error:
        log(f"cannot run: {error}")
        code = CANNOT_RUN
    if code:
        log(f"runcmd: exit code {code}")
    return code


def user_data() -> str:
    """The machine's user data, from its metadata service; empty if it has none."""
    base = os.environ["AWS_EC2_METADATA_SERVICE_ENDPOINT"]
    ttl = {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_TTL_S)}
    token = _call(f"{base}/latest/api/token", "PUT", ttl)
    try:
        return _call(f"{base}/latest/user-data", "GET", {"X-aws-ec2-metadata-token": token})
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return ""
        raise


def _call(url: str, method: str, headers: dict[str, str]) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, method=method, headers=headers)  # noqa: S310 - http
    with opener.open(request, timeout=CALL_TIMEOUT_S) as answer:
        return str(answer.read().decode())


def log(text: str) -> None:
    """Print a line on the machine's console."""
    sys.stdout.write(f"cloud-init: {text}\n")
    sys.stdout.flush()


def work(root: Path, folder: Path) -> None:
    """Execute the user data once in a machine's life; a reboot does not repeat it."""
    marker = folder / "cloud-init.done"
    if marker.exists():
        log("already done in an earlier boot")
        return
    try:
        document = parse(user_data())
        write_files(document, root)
        failed = run_commands(document, folder)
    except (BadUserDataError, OSError, KeyError, ValueError) as error:
        log(f"failed: {error}")
        return
    marker.touch()
    log(f"finished, {failed} commands failed" if failed else "finished")


def main() -> None:
    """The entry point of a machine of a base image."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    root, folder = Path(os.environ["MESAFORM_ROOT"]), Path(os.environ["MESAFORM_MACHINE_DIR"])
    root.mkdir(parents=True, exist_ok=True)
    os.environ.pop("PYTHONPATH", None)  # commands must not find this program's own code
    threading.Thread(target=work, args=(root, folder), daemon=True, name="work").start()
    while not stop.wait(SIGNAL_POLL_S):
        pass
    log("power off")
    os._exit(0)
