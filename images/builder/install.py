"""Installs the product on a machine that the roles of Ansible have prepared.

The role mesaform runs it as root, in the folder of the unpacked bundle, with the recipe's digest as
its argument. Its exit code is 0 if everything is installed and checked. Standard library only.
"""

from __future__ import annotations

import sys
from pathlib import Path

from mesaform_images.builder.host import Host, StepFailed
from mesaform_images.builder.recipe import read
from mesaform_images.builder.steps import engine, mesaform, zookeeper

STEPS = (zookeeper.steps, engine.steps, mesaform.steps)


def main(digest: str) -> int:
    """Run the steps; a failed one is named on standard error with what it needs."""
    bundle = Path.cwd()
    host = Host(root=Path("/"), bundle=bundle, log=bundle / "install.log")
    recipe, versions = read(bundle), dict[str, str]()
    for steps in STEPS:
        for name, action in steps(host, recipe, digest, versions):
            try:
                action()
            except StepFailed as error:
                sys.stderr.write(f"{name}: {error}\n")
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
