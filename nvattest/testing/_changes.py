"""The lies about certificates, which device chains and RIM chains share: expired, no CA, wrong usage, bad signature."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from nvattest.testing import _der
from nvattest.testing.certificates import (
    Certificate,
    Extension,
    Template,
    basic_constraints,
    issue,
    key_usage,
    with_extension,
)
from nvattest.testing.keys import KeyRing, SigningKey
from nvattest.testing.lies import Told

__all__ = ["Link", "issue_chain"]

_DAY = timedelta(days=1)
_NAMES = ("chain-signature", "not-a-ca", "key-usage", "critical", "algorithm", "expired", "not-yet-valid")
# An extension that nobody knows, under the enterprise number for examples (RFC 5612).
_UNKNOWN = Extension(oid="1.3.6.1.4.1.32473.1", value=_der.null(), critical=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A certificate to be: its template and its key."""

    template: Template
    key: SigningKey


def issue_chain(
    links: Sequence[Link], told: Told, clock: datetime, keys: KeyRing, cache: dict[Link, Certificate]
) -> tuple[Certificate, ...]:
    """Issue a chain from its links, leaf first, root last, with the lies told about its certificates.

    Keys and names stay what they are, so that one lie breaks one thing. Certificates without a lie come from ``cache``.
    """
    lies = {name: told.indexed(name) for name in _NAMES}
    other_root = "other-root" in told
    made: list[Certificate] = []
    last = len(links) - 1
    for position in range(last, -1, -1):
        link = links[position]
        issuer = links[min(position + 1, last)]
        changed = any(position in positions for positions in lies.values())
        # Both the root and what it signs have the rogue key behind them; names and key identifiers are the right ones.
        rogue_issuer = other_root and position >= last - 1
        if not changed and not rogue_issuer:
            certificate = cache.get(link)
            if certificate is None:
                certificate = issue(link.template, link.key, issuer.template, issuer.key)
                cache[link] = certificate
            made.append(certificate)
            continue
        rogue = keys.key("rogue root")
        made.append(
            issue(
                _changed(link.template, position, lies, clock),
                rogue if other_root and position == last else link.key,
                issuer.template,
                rogue if rogue_issuer else issuer.key,
                damage_signature=position in lies["chain-signature"],
                sha256=position in lies["algorithm"],
            )
        )
    return tuple(reversed(made))


def _changed(template: Template, position: int, lies: dict[str, dict[int, str]], clock: datetime) -> Template:
    if position in lies["not-a-ca"]:
        template = with_extension(template, basic_constraints(ca=False))
    if position in lies["key-usage"]:
        usage = "keyCertSign" if position == 0 else "digitalSignature"
        template = with_extension(template, key_usage(usage))
    if position in lies["critical"]:
        template = with_extension(template, _UNKNOWN)
    if position in lies["expired"]:
        template = replace(template, not_after=clock - _DAY)
    if position in lies["not-yet-valid"]:
        template = replace(template, not_before=clock + _DAY)
    return template
