"""Synthesizes the stacks of several cluster files in one process, as cdktf does for one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
EXAMPLES = REPOSITORY / "examples"
ACCOUNT = "111122223333"
Stacks = dict[str, dict]

PROGRAM = """
import json, sys
from pathlib import Path
from mesaform.config.parser import parse
from mesaform.provision.image import BootImage, BootImages
from mesaform_stacks.app import build
from mesaform_stacks.base import Settings
folder, account_id = Path(sys.argv[1]), sys.argv[2]
for name, text in json.loads(sys.stdin.read()).items():
    out = folder / name
    image = BootImage("ami-0123456789abcdef0", "/dev/sda1")
    images = BootImages({"x86_64": image, "arm64": image}, "digest")
    settings = Settings(parse(text), images, out / "state", "0123456789abcdef", account_id)
    build(settings, outdir=str(out)).synth()
"""


def example_files() -> dict[str, str]:
    """The cluster files of `examples/` by the names of their folders."""
    return {path.parent.name: path.read_text() for path in sorted(EXAMPLES.glob("*/cluster.yaml"))}


def synthesize(folder: Path, files: dict[str, str], account_id: str = "") -> dict[str, Stacks]:
    """Every stack's JSON by its name, of each file; `<folder>/<name>/stacks` has the files."""
    subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), account_id],
        input=json.dumps(files),
        text=True,
        check=True,
        env=dict(os.environ),
        cwd=REPOSITORY,
    )
    return {
        name: {
            path.parent.name: json.loads(path.read_text())
            for path in (folder / name / "stacks").glob("*/cdk.tf.json")
        }
        for name in files
    }
