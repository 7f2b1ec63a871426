"""First program of a builder: fetch the bundle, check it, run its program.

Its text is in the cloud-config.

Standard library only. Its argument is the presigned URL of the job: a JSON object with `bundle`,
`report` and `log` (presigned URLs), `sha256` and `digest`. The operator deletes the job as soon as
the builder reports. Errors that occur before the bundle's program runs are reported.
"""

import hashlib
import io
import json
import os
import pathlib
import subprocess
import sys
import tarfile
import time
import urllib.request


def fetch(url: str) -> bytes:
    """Return an object; retry for a minute while the network is not up."""
    for attempt in range(20):
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                data: bytes = answer.read()
                return data
        except OSError:
            if attempt == 19:
                raise
            time.sleep(3)
    raise AssertionError


def main(url: str) -> int:
    text = fetch(url).decode()
    job = json.loads(text)
    try:
        data = fetch(job["bundle"])
        digest = hashlib.sha256(data).hexdigest()
        if digest != job["sha256"]:
            raise ValueError("the bundle's checksum is " + digest)  # noqa: TRY301 - reported below
        folder = pathlib.Path(os.environ.get("MESAFORM_ROOT") or "/") / "var/tmp/mesaform-bake"
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(fileobj=io.BytesIO(data)) as bundle:
            bundle.extractall(folder)  # noqa: S202 - its checksum was just compared
        (folder / "job.json").write_text(text)
        code = subprocess.call(
            [sys.executable, "-m", "mesaform_images.builder", str(folder / "job.json")], cwd=folder
        )
        if code not in (0, 1):  # with these codes it has reported its end
            message = "the builder's program ended with " + str(code)
            raise RuntimeError(message)  # noqa: TRY301 - reported below
    except Exception as error:
        report = json.dumps(
            {"state": "failed", "step": "start", "error": repr(error), "steps": [], "versions": {}}
        )
        headers = {"Content-Type": "application/octet-stream"}
        urllib.request.urlopen(
            urllib.request.Request(job["report"], report.encode(), headers, method="PUT"),
            timeout=60,
        )
        return 1
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
