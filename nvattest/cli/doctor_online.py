"""Whether NVIDIA's services can be reached, and what their clocks say: only when asked (``doctor --online``)."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from nvattest.cli.doctor_probes import FAULT, OK, WARNING, Item

SERVICES: Final[Mapping[str, str]] = {
    "RIM service": "https://rim.attestation.nvidia.com",
    "OCSP service": "https://ocsp.ndis.nvidia.com",
    "NRAS": "https://nras.attestation.nvidia.com",
}
_SECONDS: Final = 8.0
_SKEW_SECONDS: Final = 120.0


def public(url: str) -> str:
    """An address without the user, password, query and fragment that it may carry."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "an address that cannot be read"
    return urlunsplit((parts.scheme, host + port, parts.path, "", ""))


def reach(services: Mapping[str, str], *, seconds: float = _SECONDS) -> list[Item]:
    """Ask each service for its front page, all at once. Any HTTP answer below 500 counts as reached."""
    found: dict[str, Item] = {}
    dates: dict[str, float] = {}

    def ask(name: str, url: str) -> None:
        found[name] = _ask(name, url, seconds, dates)

    threads = [threading.Thread(target=ask, args=pair, daemon=True) for pair in services.items()]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds + 2
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    items = [
        found.get(name)
        or Item(
            id=_id(name), group="network", status=FAULT, title=name,
            detail=f"{public(url)}: no answer in {seconds:.0f} s",
            remedy="a firewall that swallows packets? verify from a bundle, or set https_proxy",
        )
        for name, url in services.items()
    ]  # fmt: skip
    if dates:
        worst = max(dates.values(), key=abs)
        if abs(worst) > _SKEW_SECONDS:
            items.append(
                Item(
                    id="clock-skew", group="network", status=FAULT, title="clock against theirs",
                    detail=f"this clock is {abs(worst):.0f} s {'behind' if worst > 0 else 'ahead'}",
                    remedy="set the clock (chronyd, systemd-timesyncd): tokens and answers are judged by it",
                )
            )  # fmt: skip
        else:
            items.append(
                Item(
                    id="clock-skew",
                    group="network",
                    status=OK,
                    title="clock against theirs",
                    detail=f"{abs(worst):.0f} s apart",
                )
            )
    return items


def _id(name: str) -> str:
    return name.lower().replace(" ", "-")


def _ask(name: str, url: str, seconds: float, dates: dict[str, float]) -> Item:
    import requests

    shown = public(url)
    try:
        with requests.get(url, timeout=(seconds / 2, seconds), allow_redirects=False, stream=True) as answer:
            status, date = answer.status_code, answer.headers.get("Date", "")
    except (requests.RequestException, ValueError) as error:
        return Item(
            id=_id(name), group="network", status=FAULT, title=name, detail=f"{shown}: {_reason(error)}",
            remedy="check DNS, proxy and firewall; without a network verify from a bundle (--bundle)",
        )  # fmt: skip
    # Without a usable date there is nothing to compare with.
    with suppress(TypeError, ValueError):
        dates[name] = (parsedate_to_datetime(date) - datetime.now(timezone.utc)).total_seconds()
    if status >= 500:
        return Item(
            id=_id(name), group="network", status=WARNING, title=name, detail=f"{shown} answers {status}",
            remedy="the service has a fault of its own; try later, or verify from a bundle",
        )  # fmt: skip
    if status == 407:
        return Item(
            id=_id(name), group="network", status=FAULT, title=name, detail="the proxy wants a password",
            remedy="put user and password into https_proxy",
        )  # fmt: skip
    return Item(id=_id(name), group="network", status=OK, title=name, detail=f"{shown}, reached (HTTP {status})")


def _reason(error: Exception) -> str:
    """What went wrong, in words that hold no address: those of a proxy can hold a password."""
    import requests

    for kind, words in (
        (requests.exceptions.ProxyError, "the proxy cannot be reached or refuses"),
        (requests.exceptions.SSLError, "its TLS certificate is not trusted here (a proxy that looks inside?)"),
        (requests.exceptions.Timeout, "no answer in time"),
        (requests.exceptions.ConnectionError, "no connection (name, route or firewall)"),
    ):
        if isinstance(error, kind):
            return words
    return "the request could not be made"
