"""Limits of a task's files `stdout` and `stderr`, as of Mesos' LogrotateContainerLogger. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from mesaform.common.errors import BadInput

MIN_BYTES = 4096
"""The least size of a file: Mesos' own minimum, one page of memory."""
DEFAULT_BYTES = 100 * 1024 * 1024
DEFAULT_FILES = 10
MAX_FILES = 100
OVERRIDES = ("CONTAINER_LOGGER_MAX_STDOUT_SIZE", "CONTAINER_LOGGER_MAX_STDERR_SIZE")
"""Variables of a task that set its own size, with the names of Mesos' module."""
_UNITS = {"B": 1, "KB": 2**10, "MB": 2**20, "GB": 2**30, "TB": 2**40}


@dataclass(frozen=True, slots=True)
class OutputLimits:
    """The size at which a file is rotated, and how many files of each output are kept."""

    file_bytes: int = DEFAULT_BYTES
    files: int = DEFAULT_FILES

    def limits_for(self, environment: Mapping[str, str]) -> str:
        """The limits of one task as `runner.open_outputs` reads them.

        A task may ask for smaller files, not for larger ones.
        """
        sizes = [self._size(environment.get(name)) for name in OVERRIDES]
        return ":".join(map(str, (*sizes, self.files)))

    def _size(self, wanted: str | None) -> int:
        size = parse_bytes(wanted) if wanted else None
        return self.file_bytes if size is None else max(MIN_BYTES, min(size, self.file_bytes))

    @classmethod
    def from_settings(cls, size: str, files: str) -> OutputLimits:
        """The limits in the agent's environment; an empty text means the default.

        Raises:
            BadInput: a setting has another form.

        """
        file_bytes = parse_bytes(size) if size else DEFAULT_BYTES
        if file_bytes is None or file_bytes < MIN_BYTES:
            raise BadInput(
                f"{size!r} is not a size of at least 4KB",
                where="MESAFORM_TASK_OUTPUT_SIZE",
                fix="write a number with B, KB, MB or GB, such as 100MB",
            )
        if files and not (files.isdigit() and 1 <= int(files) <= MAX_FILES):
            raise BadInput(
                f"{files!r} is not a number from 1 to {MAX_FILES}",
                where="MESAFORM_TASK_OUTPUT_FILES",
            )
        return cls(file_bytes, int(files) if files else DEFAULT_FILES)


def parse_bytes(text: str) -> int | None:
    """The bytes of a text such as `10MB`, in Mesos' form (stout/bytes.hpp); None for another."""
    match = re.fullmatch(r"([0-9]{1,15})(B|KB|MB|GB|TB)", text)
    return int(match[1]) * _UNITS[match[2]] if match else None
