"""Validate a certificate chain as supplied, leaf first, pinned root last (RFC 5280, 6, narrowed to NVIDIA's chains).

No path is searched: certificate i must be issued by certificate i+1, and the last must be an anchor byte for byte.
All broken rules are collected, so that people see them at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from itertools import pairwise
from typing import Final, NamedTuple

from nvattest._registry import OID_ECDSA_SHA384
from nvattest.errors import InputError
from nvattest.model import format_time
from nvattest.pki.anchors import TrustAnchor
from nvattest.pki.certificate import Certificate
from nvattest.pki.ecdsa import EcdsaVerifier

# NVIDIA's device chains have five certificates and RIM chains four; this bound only limits work.
MAX_CHAIN_LENGTH: Final = 8

_TCG_DICE_PURPOSES = "2.23.133.5.4.100."
_DMTF_SPDM_PURPOSES = "1.3.6.1.4.1.412.274."


class ChainProfile(Enum):
    """What the leaf is for: signing reports of a device, or signing reference manifests.

    The keys of OCSP responders are certified below the same roots and are neither, so a leaf whose extended key usage
    names another purpose is refused.
    """

    DEVICE = "device"
    RIM = "rim"

    @property
    def purposes(self) -> tuple[str, ...]:
        """Arcs of the extended key usages that a leaf may have, if it has that extension at all."""
        return (_TCG_DICE_PURPOSES, _DMTF_SPDM_PURPOSES) if self is ChainProfile.DEVICE else ()


class ChainFinding(NamedTuple):
    """One broken rule. ``rule`` is a stable word, ``position`` counts certificates from the leaf, which is 0.

    Rules: ``length``, ``duplicate``, ``order``, ``extra-certificate``, ``issuer-name``, ``signature``, ``ca-flag``,
    ``path-length``, ``key-usage``, ``curve``, ``algorithm``, ``critical-extension``, ``anchor``; and of validity
    ``not-yet-valid`` and ``expired``.
    """

    rule: str
    position: int
    subject: str
    message: str
    expected: str
    found: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidatedChain:
    """A chain and the rules that it breaks. ``anchor`` is None where the last certificate is no anchor.

    ``path_ok`` and ``in_validity`` are separate answers: the first says who signed, the second whether at ``at`` every
    certificate was within its validity, both ends included.
    """

    certificates: tuple[Certificate, ...]
    anchor: TrustAnchor | None
    path_findings: tuple[ChainFinding, ...]
    validity_findings: tuple[ChainFinding, ...]
    at: datetime

    @property
    def path_ok(self) -> bool:
        """Whether every link, every constraint and the anchor hold."""
        return self.anchor is not None and not self.path_findings

    @property
    def in_validity(self) -> bool:
        """Whether every certificate was valid at ``at``."""
        return bool(self.certificates) and not self.validity_findings

    def judged_at(self, at: datetime) -> ValidatedChain:
        """The same path, and its validity at the instant ``at``; InputError where it has no time zone."""
        if at == self.at:
            return self
        _check_zone(at)
        return replace(self, at=at, validity_findings=tuple(_validity(self.certificates, at)))

    @property
    def earliest_not_after(self) -> datetime:
        """When the first certificate of the chain ends; InputError where the chain is empty."""
        return min(certificate.not_after for certificate in self._some())

    @property
    def leaf(self) -> Certificate:
        """The first certificate, whose key signs reports or manifests; InputError where the chain is empty."""
        return self._some()[0]

    def _some(self) -> tuple[Certificate, ...]:
        if not self.certificates:
            raise InputError("the certificate chain is empty", code="chain-empty")
        return self.certificates


def validate_chain(
    certificates: Sequence[Certificate],
    anchors: Sequence[TrustAnchor],
    *,
    profile: ChainProfile,
    at: datetime,
    verifier: EcdsaVerifier,
) -> ValidatedChain:
    """Check a chain, leaf first and root last, against ``anchors`` and the instant ``at`` (an aware datetime).

    A bad chain raises nothing; it has findings.

    Raises:
        InputError: ``at`` has no time zone.
    """
    _check_zone(at)
    chain = tuple(certificates)
    if not 1 <= len(chain) <= MAX_CHAIN_LENGTH:
        message, allowed = f"the chain has {len(chain)} certificates", f"1 to {MAX_CHAIN_LENGTH}"
        fault = ChainFinding("length", 0, "", message, allowed, str(len(chain)))
        return ValidatedChain(certificates=chain, anchor=None, path_findings=(fault,), validity_findings=(), at=at)
    anchor = next((anchor for anchor in anchors if anchor.matches(chain[-1])), None)
    findings = [
        *_shape(chain, anchors),
        *_links(chain, verifier),
        *_algorithms(chain),
        *_authorities(chain),
        *_leaf(chain[0], profile),
    ]
    if anchor is None:
        root = chain[-1]
        same = any(anchor.subject == root.subject for anchor in anchors)
        message = "has the name of a trust anchor but is another certificate" if same else "is no trust anchor"
        expected = (
            " or ".join(f"{anchor.name} sha256:{anchor.certificate_sha256.hex()}" for anchor in anchors) or "none"
        )
        findings.append(_finding("anchor", len(chain) - 1, root, message, expected, f"sha256:{root.sha256.hex()}"))
    return ValidatedChain(
        certificates=chain,
        anchor=anchor,
        path_findings=tuple(findings),
        validity_findings=tuple(_validity(chain, at)),
        at=at,
    )


def _check_zone(at: datetime) -> None:
    if at.tzinfo is None:
        raise InputError("the time of a chain validation has no time zone", code="time-zone")


def _finding(
    rule: str, position: int, certificate: Certificate, message: str, expected: str, found: str
) -> ChainFinding:
    message = f"certificate {position} ({certificate.label}) {message}"
    return ChainFinding(rule, position, certificate.subject, message, expected, found)


def _shape(chain: tuple[Certificate, ...], anchors: Sequence[TrustAnchor]) -> Iterator[ChainFinding]:
    """Duplicates, certificates that do not belong here and a wrong order, by names: they prove nothing, but explain."""
    last = len(chain) - 1
    seen: dict[Certificate, int] = {}
    for position, certificate in enumerate(chain):
        if certificate in seen:
            message, digest = f"is certificate {seen[certificate]} again", certificate.sha256.hex()
            yield _finding("duplicate", position, certificate, message, "each certificate once", digest)
        seen.setdefault(certificate, position)
        if position < last and any(anchor.matches(certificate) for anchor in anchors):
            above, more = position + 1, f"{last - position} more"
            yield _finding(
                "extra-certificate", above, chain[above], "follows the trust anchor", "the anchor last", more
            )
    if all(below.issuer_der == above.subject_der for below, above in pairwise(chain)):
        return
    path = _path_by_names(chain)
    top = chain[path[-1]]
    if top.subject_der == top.issuer_der:
        for position in sorted(set(range(len(chain))) - set(path)):
            stray = chain[position]
            message = "is not on the path from the leaf to the root"
            yield _finding("extra-certificate", position, stray, message, "only the path", stray.subject)
    if path != sorted(path):
        message = "does not start a path in the order given"
        expected, found = "leaf first, then each issuer, root last", f"positions {', '.join(map(str, path))}"
        yield _finding("order", path[0], chain[path[0]], message, expected, found)


def _path_by_names(chain: tuple[Certificate, ...]) -> list[int]:
    """Positions from the certificate that issued none of the others up to where no issuer is found."""
    issuers = {certificate.issuer_der for certificate in chain if certificate.issuer_der != certificate.subject_der}
    start = next((i for i, certificate in enumerate(chain) if certificate.subject_der not in issuers), 0)
    path = [start]
    while True:
        issuer = chain[path[-1]].issuer_der
        above = next((i for i, other in enumerate(chain) if other.subject_der == issuer and i not in path), None)
        if above is None or chain[path[-1]].subject_der == issuer:
            return path
        path.append(above)


def _links(chain: tuple[Certificate, ...], verifier: EcdsaVerifier) -> Iterator[ChainFinding]:
    for position, certificate in enumerate(chain):
        last = position == len(chain) - 1
        issuer = certificate if last else chain[position + 1]
        if certificate.issuer_der != issuer.subject_der:
            message = "names another issuer than " + ("itself" if last else f"certificate {position + 1}")
            yield _finding("issuer-name", position, certificate, message, issuer.subject, certificate.issuer)
        elif not verifier.verify_der(
            issuer.spki_der, certificate.signature, certificate.tbs, sha256=certificate.sha256
        ):
            signer = "its own key" if last else f"certificate {position + 1} ({issuer.label})"
            expected = "a valid ECDSA P-384 signature of the issuer's key"
            found = "a signature that does not verify"
            yield _finding("signature", position, certificate, f"is not signed by {signer}", expected, found)


def _algorithms(chain: tuple[Certificate, ...]) -> Iterator[ChainFinding]:
    for position, it in enumerate(chain):
        if not it.is_p384:
            yield _finding("curve", position, it, "has no P-384 key", "P-384", "another kind of key")
        if not it.is_ecdsa_sha384:
            message = "is not signed with ECDSA and SHA-384"
            yield _finding("algorithm", position, it, message, OID_ECDSA_SHA384, it.signature_algorithm_oid)
        if it.unknown_critical:
            message, found = "has a critical extension that is not understood", ", ".join(it.unknown_critical)
            yield _finding("critical-extension", position, it, message, "none", found)


def _authorities(chain: tuple[Certificate, ...]) -> Iterator[ChainFinding]:
    for position, it in enumerate(chain[1:], start=1):
        if it.is_ca is not True:
            message = "issues certificates but is not marked as a CA"
            found = "no basicConstraints" if it.is_ca is None else "CA:FALSE"
            yield _finding("ca-flag", position, it, message, "CA:TRUE", found)
        if it.key_cert_sign is not True:
            message = "issues certificates without the key usage for it"
            found = "no keyUsage" if it.key_cert_sign is None else "keyUsage without keyCertSign"
            yield _finding("key-usage", position, it, message, "keyCertSign", found)
        if it.path_length is not None and position - 1 > it.path_length:
            message = "allows fewer CAs below it than there are"
            yield _finding("path-length", position, it, message, f"at most {it.path_length}", str(position - 1))


def _leaf(leaf: Certificate, profile: ChainProfile) -> Iterator[ChainFinding]:
    if leaf.is_ca:
        yield _finding("ca-flag", 0, leaf, "is a CA and must not be", "no CA", "CA:TRUE")
    if leaf.digital_signature is not True:
        found = "no keyUsage" if leaf.digital_signature is None else "keyUsage without digitalSignature"
        yield _finding("key-usage", 0, leaf, "may not sign data", "digitalSignature", found)
    other = [usage for usage in leaf.extended_key_usage or () if not usage.startswith(profile.purposes)]
    if other:
        yield _finding("key-usage", 0, leaf, "is for another purpose", f"a {profile.value} signer", ", ".join(other))


def _validity(chain: tuple[Certificate, ...], at: datetime) -> Iterator[ChainFinding]:
    """No finding about a chain that is too long: no certificate of it is looked at."""
    if len(chain) > MAX_CHAIN_LENGTH:
        return
    # notAfter has whole seconds and is valid through its second (RFC 5280, 4.1.2.5).
    instant = at.replace(microsecond=0)
    for position, it in enumerate(chain):
        if it.not_before <= instant <= it.not_after:
            continue
        found = f"checked at {format_time(at)}"
        if instant < it.not_before:
            start = f"from {format_time(it.not_before)}"
            yield _finding("not-yet-valid", position, it, "is not valid yet", start, found)
        if instant > it.not_after:
            yield _finding("expired", position, it, "has expired", f"until {format_time(it.not_after)}", found)
