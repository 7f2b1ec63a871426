"""`python -m tests.fuzz.replay FILE…`: send stored inputs to a new cluster, show the answers."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.fuzz.inputs import from_json
from tests.fuzz.subject import Subject, own_environment
from tests.fuzz.targets import by_name


def main(files: list[str]) -> int:
    """Replay each file; 1 when the cluster is not well afterwards."""
    with (
        own_environment(),
        tempfile.TemporaryDirectory(prefix="fuzz-") as folder,
        Subject(Path(folder)) as subject,
    ):
        perform = by_name(subject)
        subject.begin_measurement()
        for file in files:
            target, value = from_json(Path(file).read_bytes())
            answer = perform[target](value)
            print(f"{answer.status} {target} {file} {answer.body[:200]!r}")
        wrong = subject.check()
    print("\n".join(wrong) or "nothing wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
