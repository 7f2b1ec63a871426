"""The app that cdktf and `mesaform up` run (`cdktf.json`): read settings, write the stacks.

`mesaform_stacks.environment` lists the variables that it reads.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from mesaform.common.errors import MesaformError
from mesaform_stacks.app import build
from mesaform_stacks.environment import read_settings


def close_to_others(folder: Path) -> None:
    """Let only the owner into a folder: user data of masters has the cluster's secret.

    The files are written by jsii's process, which does not take this one's umask.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    for path in folder.rglob("cdk.tf.json"):
        path.chmod(0o600)


def main() -> int:
    outdir = os.environ.get("CDKTF_OUTDIR")
    try:
        if outdir:
            close_to_others(Path(outdir))
        build(read_settings(), outdir=outdir).synth()
        if outdir:
            close_to_others(Path(outdir))
    except MesaformError as error:
        sys.stderr.write(f"mesaform: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
