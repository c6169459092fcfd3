"""Files that hold secrets: their names below the data folder, and how they are written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

TLS_FOLDER: Final = "tls"
CA_KEY: Final = "ca-key.pem"
CA: Final = "ca.pem"


def write_private(path: Path, text: str) -> None:
    """Write a file of mode 0600, whole or not at all, durable when this returns."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
