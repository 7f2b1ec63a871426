"""Copies the cluster's CA from SSM into a file of a master, and ends.

`mesaform.node.certificates` runs it as a process of its own, so that botocore's memory is freed.
Exit codes: 0 the file is up to date, 1 try again later.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from botocore.exceptions import BotoCoreError

from mesaform.aws.authority_parameter import AUTHORITY_DOCUMENT
from mesaform.aws.secure_parameter import SecureParameter
from mesaform.common.certificates import AuthorityDocument, document_text
from mesaform.common.errors import MesaformError
from mesaform.common.files import PRIVATE_FILE_MODE, write_atomically

EXIT_LATER = 1


def copy(document: AuthorityDocument, file: Path) -> None:
    """Write the document, if the file differs.

    Raises:
        OSError: the file cannot be written.

    """
    text = document_text(document).encode()
    if file.exists() and file.read_bytes() == text:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, text, mode=PRIVATE_FILE_MODE)


def main(argv: Sequence[str] | None = None) -> int:
    """`copy_authority CLUSTER REGION FILE`."""
    cluster, region, file = argv if argv is not None else sys.argv[1:]
    try:
        document = SecureParameter(AUTHORITY_DOCUMENT, cluster, region).read()
        if document is None:
            sys.stdout.write(f"{cluster} has no CA in SSM: run mesaform up\n")
            return EXIT_LATER
        copy(document, Path(file))
    except (MesaformError, BotoCoreError, OSError) as error:
        sys.stdout.write(f"the CA is not copied: {error}\n")
        return EXIT_LATER
    return 0


if __name__ == "__main__":
    sys.exit(main())
