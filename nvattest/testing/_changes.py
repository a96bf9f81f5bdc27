"""The lies about certificates, which device chains and RIM chains share: expired, no CA, wrong usage, bad signature."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from nvattest._registry import OID_DICE_MULTI_TCB_INFO
from nvattest.errors import InputError
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

__all__ = ["Link", "issue_chain", "tcb_flags"]

_DAY = timedelta(days=1)
_NAMES = (
    *("chain-signature", "not-a-ca", "key-usage", "critical", "algorithm", "expired", "not-yet-valid"),
    "multi-tcb-info",
)
# Bits of the operational flags of a DICE TCB info, from the left; genuine ones set the first and the last of 32.
_FLAG_BITS = {"notSecure": 1, "recovery": 2, "debug": 3}
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


def tcb_flags(name: str | None) -> bytes:
    """The content of the flags of a DICE TCB info: as on genuine devices, and with this flag set.

    Raises:
        InputError: no flag that makes a device untrusted.
    """
    bits = 0x80000001
    if name is not None:
        if name not in _FLAG_BITS:
            raise InputError(f"not a flag: {name[:40]!r}", code="fault-argument", hint=f"write {', '.join(_FLAG_BITS)}")
        bits |= 1 << (31 - _FLAG_BITS[name])
    return bytes(1) + bits.to_bytes(4, "big")


def _multi_tcb_info(flag: str) -> Extension:
    """Two TCB infos, of which the second states the flag."""
    infos = [_der.sequence(_der.implicit(0, b"NVIDIA"), _der.implicit(7, tcb_flags(name))) for name in (None, flag)]
    return Extension(oid=OID_DICE_MULTI_TCB_INFO, value=_der.sequence(*infos))


def _changed(template: Template, position: int, lies: dict[str, dict[int, str]], clock: datetime) -> Template:
    if position in lies["not-a-ca"]:
        template = with_extension(template, basic_constraints(ca=False))
    if position in lies["key-usage"]:
        usage = "keyCertSign" if position == 0 else "digitalSignature"
        template = with_extension(template, key_usage(usage))
    if position in lies["critical"]:
        template = with_extension(template, _UNKNOWN)
    if position in lies["multi-tcb-info"]:
        template = with_extension(template, _multi_tcb_info(lies["multi-tcb-info"][position] or "debug"))
    if position in lies["expired"]:
        template = replace(template, not_after=clock - _DAY)
    if position in lies["not-yet-valid"]:
        template = replace(template, not_before=clock + _DAY)
    return template
