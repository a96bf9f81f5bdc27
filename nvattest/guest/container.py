"""The OCI state that a runtime gives a hook on stdin: for logs only, since the host wrote most of it."""

from __future__ import annotations

import os
import time
from typing import Final, NamedTuple

from nvattest._text import clean

__all__ = ["Container", "parse_state", "read_state"]

MAXIMUM: Final = 1024 * 1024
_TEXT: Final = 128
_KIND: Final = "io.katacontainers.pkg.oci.container_type"


class Container(NamedTuple):
    """``kind`` is ``pod_sandbox`` or ``pod_container`` in a Kata guest; ``note`` says what could not be read."""

    id: str = ""
    kind: str = ""
    note: str = ""


def read_state(descriptor: int = 0, *, seconds: float = 2.0) -> Container:
    """Read all of stdin, since a writer whose pipe closes early may call that a failure of the hook. Never raises."""
    import select

    until = time.monotonic() + seconds
    parts: list[bytes] = []
    size = 0
    try:
        if os.isatty(descriptor):
            return Container(note="stdin is a terminal")
        while True:
            readable, _, _ = select.select([descriptor], [], [], max(0.0, until - time.monotonic()))
            if not readable:
                return Container(note=f"stdin did not end within {seconds:g} s")
            part = os.read(descriptor, 65536)
            if not part:
                break
            size += len(part)
            if size <= MAXIMUM:
                parts.append(part)
    except (OSError, ValueError) as error:
        return Container(note=f"stdin could not be read: {error}"[:_TEXT])
    return parse_state(b"".join(parts)) if size <= MAXIMUM else Container(note=f"stdin has more than {MAXIMUM} bytes")


def parse_state(data: bytes) -> Container:
    """Take from the state what a log can use; members that we do not know are nobody's concern. Never raises."""
    if not data.strip():
        return Container()
    import json

    try:
        state = json.loads(data)
    except (ValueError, RecursionError):
        return Container(note="stdin is not JSON")
    if not isinstance(state, dict):
        return Container(note="stdin is not a JSON object")
    annotations = state.get("annotations")
    kind = annotations.get(_KIND) if isinstance(annotations, dict) else None
    return Container(id=_text(state.get("id")), kind=_text(kind))


def _text(value: object) -> str:
    return clean(value, _TEXT) if isinstance(value, str) else ""
