"""HTML answers: what a browser may load and run in a page of ours (Content-Security-Policy).

Scripts come from our own files and from nowhere else. Styles too, but for elements that carry the
nonce of the very answer they are in: the console's libraries make some while they run.
"""

from __future__ import annotations

import secrets
from typing import Final

from starlette.responses import HTMLResponse

MARK: Final = "nonce-of-this-answer"
"""Stands in a page where its nonce goes."""


def policy(nonce: str = "") -> str:
    """Return the policy of an answer; without a nonce nothing inline is taken at all."""
    styles = f"style-src 'self' 'nonce-{nonce}'; " if nonce else ""
    return (
        f"default-src 'self'; {styles}img-src 'self' data:; object-src 'none'; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
    )


def page(text: str, *, cache: str = "no-store") -> HTMLResponse:
    """Return a page, with a nonce that is used for nothing else."""
    nonce = secrets.token_urlsafe(16)
    headers = {"cache-control": cache, "content-security-policy": policy(nonce)}
    return HTMLResponse(text.replace(MARK, nonce), headers=headers)
