"""Whether NVIDIA's services can be reached, and what their clocks say: only when asked (``doctor --online``)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from functools import partial
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit, urlunsplit

from nvattest.cli.doctor_probes import FAULT, OK, WARNING, Item
from nvattest.errors import InputError

if TYPE_CHECKING:
    from nvattest.collateral.settings import HttpSettings

SERVICES: Final[Mapping[str, str]] = {
    "RIM service": "https://rim.attestation.nvidia.com",
    "OCSP service": "https://ocsp.ndis.nvidia.com",
    "NRAS": "https://nras.attestation.nvidia.com",
}
_SECONDS: Final = 8.0
_SKEW_SECONDS: Final = 120.0
_BUNDLE: Final = "without a network verify from a bundle (--bundle)"


def public(url: str) -> str:
    """An address without the user, password, query and fragment that it may carry."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "an address that cannot be read"
    return urlunsplit((parts.scheme, host + port, parts.path, "", ""))


def reach(services: Mapping[str, str], *, seconds: float = _SECONDS, http: HttpSettings | None = None) -> list[Item]:
    """Ask each service for its front page, all at once. Any HTTP answer below 500 counts as reached.

    ``http`` has the roots of TLS. Neither a service key nor a password of ``~/.netrc`` is sent.
    """
    from nvattest._waiting import Deadline, Late, run_all
    from nvattest.collateral.http import HttpClient

    deadline = Deadline(seconds)
    with HttpClient(http) as client:
        results = run_all([partial(client.look, url, deadline=deadline) for url in services.values()], deadline)
    items: list[Item] = []
    dates: list[float] = []
    for (name, url), result in zip(services.items(), results, strict=True):
        if isinstance(result, Late):
            detail, remedy = f"no answer in {seconds:g} s", "a firewall that swallows packets?"
            items.append(_fault(name, f"{public(url)}: {detail}", f"{remedy} {_BUNDLE}"))
        elif isinstance(result, InputError):
            items.append(_fault(name, f"{public(url)} was not asked: {result}", result.hint))
        elif isinstance(result, Exception):
            items.append(_fault(name, f"{public(url)}: {_reason(result)}", f"check DNS, proxy and firewall; {_BUNDLE}"))
        else:
            items.append(_reached(name, url, result[0]))
            # Without a usable date there is nothing to compare with.
            with suppress(TypeError, ValueError):
                dates.append((parsedate_to_datetime(result[1]) - datetime.now(timezone.utc)).total_seconds())
    if dates:
        worst = max(dates, key=abs)
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


def _fault(name: str, detail: str, remedy: str) -> Item:
    return Item(id=_id(name), group="network", status=FAULT, title=name, detail=detail, remedy=remedy)


def _reached(name: str, url: str, status: int) -> Item:
    if status == 407:
        return _fault(name, "the proxy wants a password", "put user and password into https_proxy")
    if status >= 500:
        return Item(
            id=_id(name), group="network", status=WARNING, title=name, detail=f"{public(url)} answers {status}",
            remedy="the service has a fault of its own; try later, or verify from a bundle",
        )  # fmt: skip
    return Item(id=_id(name), group="network", status=OK, title=name, detail=f"{public(url)}, reached (HTTP {status})")


def _reason(error: Exception) -> str:
    """What went wrong, in words that hold no address: those of a proxy can hold a password."""
    import requests

    for kind, words in (
        (requests.exceptions.ProxyError, "the proxy cannot be reached or refuses"),
        (
            requests.exceptions.SSLError,
            "its TLS certificate is not trusted here (a proxy that looks inside? name its CA with --tls-ca-cert)",
        ),
        (requests.exceptions.Timeout, "no answer in time"),
        (requests.exceptions.ConnectionError, "no connection (name, route or firewall)"),
    ):
        if isinstance(error, kind):
            return words
    return "the request could not be made"
