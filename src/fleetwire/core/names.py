"""Names of nodes, projects and users: what stands in a path, a shell or a page as it is."""

from __future__ import annotations

import re
from typing import Final

from fleetwire.core import limits

_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")


def is_name(text: str) -> bool:
    """Say whether a text can be a name."""
    return len(text) <= limits.NAME_CHARS and _NAME.fullmatch(text) is not None
