"""Files that hold secrets: their names below the data folder, and how they are written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

TLS_FOLDER: Final = "tls"
CA_KEY: Final = "ca-key.pem"
CA: Final = "ca.pem"


def write_private(path: Path, content: bytes) -> None:
    """Write a file of mode 0600, whole or not at all, durable when this returns. One that is there
    is replaced; after a crash it is the one before, and a draft beside it is of no account.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Make durable what a file holds, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
