"""Verification by NRAS for the old interface: the same services, the signed answer checked before it is believed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from nvattest.compat._errors import NoEvidenceError
from nvattest.compat._settings import Settings, nras_base
from nvattest.compat._warnings import FOREIGN_SERVICE, migrated
from nvattest.evidence import Evidence
from nvattest.model import Nonce

if TYPE_CHECKING:
    from nvattest._documents import JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteResult:
    """What NRAS said: its verdict, its reasons for refusing devices, and its detached EAT as it came."""

    trusted: bool
    token: object
    reasons: tuple[str, ...]


def attest_at_nras(
    evidence: Sequence[Evidence],
    *,
    nonce: Nonce,
    url: str,
    claims_version: str,
    settings: Settings,
    at: datetime | None = None,
) -> RemoteResult:
    """Have NRAS verify devices of one architecture, and verify its answer at ``at``, or when it has come.

    Raises:
        NoEvidenceError: devices of several architectures.
        InputError: a URL that cannot be used.
        CollateralError: no answer.
        TokenError: an answer that must not be believed.
    """
    from nvattest.collateral.nras import NrasClient
    from nvattest.collateral.settings import HttpSettings

    if len({item.architecture for item in evidence}) != 1:
        raise NoEvidenceError("NRAS verifies devices of one architecture at a time", code="architecture")
    base = nras_base(url)
    if settings.hold_allowed():
        migrated(
            "certificates on hold are allowed here, and this is not passed on to NRAS: its answer says what it found, "
            "and your policy decides."
        )
    http = HttpSettings(service_key=settings.key(), key_hosts=(base,))
    with NrasClient(base, http=http, timeout=settings.timeout, claims_version=claims_version) as client:
        # Whoever names simulated roots wants simulated devices; the token says what they are.
        answers = client.attest(evidence, nonce=nonce, at=at, accept_simulated=settings.trust_anchors().simulated)
    verified = answers[0].verified
    if not verified.of_nvidia:
        simulated = " and is simulated, which proves nothing" * verified.simulated
        migrated(FOREIGN_SERVICE.format(issuer=verified.issuer, simulated=simulated))
    reasons = tuple(map(str, verified.refusals))
    return RemoteResult(trusted=verified.overall, token=answers[0].token, reasons=reasons)


def fetch_keys(url: str, *, settings: Settings) -> JsonObject:
    """The key set of NRAS, over TLS.

    Raises:
        CollateralError: it cannot be had.
    """
    from nvattest.collateral.nras import NrasClient
    from nvattest.collateral.settings import HttpSettings

    with NrasClient(nras_base(url), http=HttpSettings(), timeout=settings.timeout) as client:
        return client.keys()
