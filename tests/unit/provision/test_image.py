"""Which image the stacks take when somebody types `cdktf` by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
APP = "from mesaform.provision.image import destroys; print(destroys())"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("verb", "destroys"), [("destroy", True), ("deploy", False), ("diff", False)]
)
def test_a_destroy_by_hand_is_recognised_by_the_program_that_runs_the_app(
    tmp_path: Path, verb: str, destroys: bool
) -> None:
    cdktf = (
        tmp_path / "cdktf"
    )  # stands where Node's would: a program of that name whose grandchild is the app
    app = f'{sys.executable} -c "{APP}"; true'
    cdktf.write_text(f"import subprocess\nsubprocess.run({app!r}, shell=True, check=True)\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, str(cdktf), verb, "*", "--auto-approve"],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    assert ended.stdout.strip() == str(destroys)
