"""Intel TDX: verify a quote with ``dcap-qvl`` (extra ``tdx``) and our own policy. Steps 27 to 33 of the story.

The library verifies everything that Intel signs and refuses with texts only, so our own checks come first and give our
names: collateral that is not current or of another platform, a chain that does not lead to Intel's root, a revoked
certificate, a trust domain in a state that no policy accepts. What is left for the library's refusal is the signature.
It is asked for claims alone: which TCB level counts is for ``TdxDemands`` to say.

It always refuses: debug and profiling, migratable trust domains, service domains, reserved attributes, and a trust
domain without SEPT_VE_DISABLE.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, Final, NamedTuple

from cryptography import x509

from nvattest.appraisal.check import Check, failed, passed, skipped
from nvattest.appraisal.guest import GuestFacts, TdxDemands
from nvattest.errors import InputError, ParseError
from nvattest.model import format_time, parse_time
from nvattest.pki.anchors import CpuAnchors
from nvattest.pki.certificate import (
    LIBRARY_ERRORS,
    OCTET_STRING,
    OID,
    SEQUENCE,
    Certificate,
    DerReader,
    dotted,
    parse_pem_chain,
)
from nvattest.tee.collateral import (
    TDX_PCK_CHAIN,
    TdxCollateral,
    authority_of,
    collateral_windows,
    signed_by_intel,
    validity,
)
from nvattest.tee.quote import ParsedQuote, TdBody, pck_chain

# Intel's extensions of a PCK certificate, and the platform type (FMSPC) among them.
_SGX: Final = "1.2.840.113741.1.13.1"
_FMSPC: Final = f"{_SGX}.4"
_CHAIN: Final = 3
_LIBRARY: Final = "0.7."
# Refusals of the library, by how they begin, that genuine quotes meet, too: there the hint must not say that something
# was changed. A reason of other words is one of the signature.
_NO_FORGERY: Final = (
    (
        ("TCB status is invalid", "No matching TCB level", "TDX module TCB level", "QE ISVSVN"),
        "quote-tcb", "Intel revoked the TCB level of the platform, or lists none for it",
        "ask the platform's provider; firmware newer than the collateral needs newer collateral",
    ),
    (
        ("Reserved bits in TD attributes", "Invalid MR service TD"),
        "guest-state", "not a trust domain that this verifier accepts",
        "start the guest without service domains and attributes that TDX reserves",
    ),
)  # fmt: skip
_DEBUG, _SEPT_VE_DISABLE, _MIGRATABLE = 0xFF, 1 << 28, 1 << 29
_FETCH: Final = "get newer collateral (nvattest bundle fetch --tee-quote), and check the clock"
_CHANGED: Final = "the quote or the collateral was changed, or re-serialised: Intel signs the texts byte by byte"
_UPDATE: Final = "let the provider update the host's firmware, or accept it by name in the CPU policy ({})"
_CHAIN_HINT: Final = "the certificates are not Intel's, or not intact: take the quote again"


class Platform(NamedTuple):
    """What a quote's certificate says of its machine; nothing of it is verified.

    ``fmspc`` has upper-case hexadecimal digits, ``ca`` is ``platform`` or ``processor``, as Intel's service names them.
    """

    fmspc: str
    ca: str


def platform_of(quote: ParsedQuote) -> Platform:
    """The platform type and the certificate authority of a TDX quote, with which its collateral is fetched.

    Raises:
        ParseError: the quote carries no certificate chain, or its leaf names no platform type.
    """
    chain = parse_pem_chain(pck_chain(quote))
    return Platform(_fmspc(chain[0]), authority_of(chain[0].issuer))


def _fmspc(certificate: Certificate) -> str:
    reader = DerReader(certificate.extension(_SGX) or b"", source="PCK certificate, Intel's extensions")
    items = reader.inner(SEQUENCE, "extensions")
    while not items.at_end:
        item = items.inner(SEQUENCE, "extension")
        if dotted(item.content(OID, "name")) == _FMSPC:
            return item.content(OCTET_STRING, "FMSPC").hex().upper()
    raise reader.error("no platform type (FMSPC)")


def appraise_tdx(
    quote: ParsedQuote, body: TdBody, collateral: TdxCollateral, demands: TdxDemands, anchors: CpuAnchors, at: datetime
) -> tuple[list[Check], GuestFacts | str]:
    """Steps 27 to 33 for a TDX quote, and what it says, or why that is not known.

    Bad input raises nothing: it fails its checks.

    Raises:
        InputError: the extra ``tdx`` is not installed, or another version of its library (code ``tdx-missing``).
    """
    try:
        chain = _read_chain(quote, collateral)
    except ParseError as error:
        why = "the quote has no readable certificate chain"
        return [failed("quote-chain", error.message, hint=_CHAIN_HINT)], why
    path = _check_chain(chain, collateral, anchors, at)
    checks = [
        _check_collateral(chain, collateral, at),  # (27)
        path,  # (28)
        *([_check_revocation(chain, collateral)] if path.acceptable else []),  # (29)
    ]
    state, unverified = _check_state(body), "the quote is not verified"
    if not all(check.acceptable for check in checks):
        return checks, unverified
    claims = _verify(quote.data, collateral, anchors, at)
    if isinstance(claims, str):
        if state.acceptable:
            return [*checks, *_refused(claims)], unverified
        why = f"dcap-qvl refuses such a trust domain before it judges all signatures ({claims})"
        return [*checks, skipped("quote-signature", why), state], unverified
    if problem := _contradiction(claims, body):
        return [*checks, failed("quote-signature", problem, hint=_CHANGED)], unverified
    checks += [
        passed("quote-signature", "ECDSA P-256 by a key that the quoting enclave certifies"),  # (30)
        _check_tcb(claims, demands),  # (31)
        passed("quote-chip", f"platform type {collateral.fmspc}, as in the certificate"),  # (32)
        state,  # (33)
    ]
    tcb, evaluation = claims["tcb"], _evaluation(claims)
    until = datetime.fromtimestamp(claims["earliest_expiration_date"], tz=timezone.utc)
    return checks, GuestFacts(
        measurement=body.mrtd,
        registers=body.rtmrs,
        report_data=body.report_data,
        level=f"{tcb['status']} on {format_time(at)[:10]}, evaluation {evaluation}",
        tcb={
            "status": tcb["status"],
            "advisories": list(tcb["advisory_ids"]),
            "evaluation": evaluation,
            "date": claims["platform"]["tcb_level"]["tcbDate"],
        },
        endorsement={
            "kind": "pck",
            "fmspc": collateral.fmspc,
            "ppid": bytes(claims["platform"]["pck"]["ppid"]).hex(),
            "not_after": format_time(chain[0].not_after),
            "root": anchors.intel.name,
        },
        collateral={"good_until": format_time(until)},
    )


def _read_chain(quote: ParsedQuote, collateral: TdxCollateral) -> tuple[Certificate, ...]:
    # As the library has it: a chain in the collateral comes before the quote's own.
    pem = collateral.members.get(TDX_PCK_CHAIN)
    chain = parse_pem_chain(pem.encode() if pem is not None else pck_chain(quote))
    if len(chain) != _CHAIN:
        raise ParseError(f"{len(chain)} certificates, expected {_CHAIN}", source="PCK chain", code="chain-size")
    return chain


def _check_collateral(chain: tuple[Certificate, ...], collateral: TdxCollateral, at: datetime) -> Check:
    try:
        fmspc = _fmspc(chain[0])
        windows = collateral_windows(collateral)
    except ParseError as error:
        return failed("quote-collateral", error.message, hint=_FETCH)
    if fmspc != collateral.fmspc:
        return failed(
            "quote-collateral", "the collateral is about another platform type", expected=fmspc,
            found=collateral.fmspc, hint="fetch the collateral for this quote (nvattest bundle fetch --tee-quote)",
        )  # fmt: skip
    for window in windows:
        if not window.holds(at):
            detail, found = f"{window.name} is not current", format_time(at)
            return failed("quote-collateral", detail, expected=str(window), found=found, hint=_FETCH)
    earliest = min(window.until for window in windows if window.until is not None)
    return passed("quote-collateral", f"platform type {fmspc}, good until {format_time(earliest)}")


def _check_chain(chain: tuple[Certificate, ...], collateral: TdxCollateral, anchors: CpuAnchors, at: datetime) -> Check:
    # The library takes the root as given, and does not look at those in the collateral.
    roots = {"the quote's chain": chain[-1]}
    try:
        for name in ("tcb_info_issuer_chain", "qe_identity_issuer_chain"):
            roots[name] = parse_pem_chain(collateral.members[name].encode())[-1]
    except ParseError as error:
        return failed("quote-chain", f"{name} cannot be read: {error.message}", hint=_FETCH)
    for name, root in roots.items():
        if not anchors.intel.matches(root):
            return failed(
                "quote-chain", f"{name} ends at another root than {anchors.intel.name}",
                expected=anchors.intel.certificate_sha256.hex(), found=root.sha256.hex(),
                hint="it is not Intel's: a platform that is simulated or was made up",
            )  # fmt: skip
    for position, certificate in enumerate(chain):
        issuer = chain[min(position + 1, len(chain) - 1)]
        signed = signed_by_intel(issuer.spki_der, certificate.signature, certificate.tbs)
        if certificate.issuer_der != issuer.subject_der or not signed:
            return failed("quote-chain", f"{certificate.label} is not signed by {issuer.label}", hint=_CHAIN_HINT)
        if certificate is not chain[0] and (certificate.is_ca is not True or certificate.key_cert_sign is not True):
            return failed("quote-chain", f"{certificate.label} is no authority", hint=_CHAIN_HINT)
        if not validity(certificate).holds(at):
            return failed(
                "quote-chain", f"{certificate.label} is not in its validity period",
                expected=str(validity(certificate)), found=format_time(at),
                hint="check the clock; the platform has to be provisioned anew if it is right",
            )  # fmt: skip
    return passed("quote-chain", ", ".join(certificate.label for certificate in chain))


def _check_revocation(chain: tuple[Certificate, ...], collateral: TdxCollateral) -> Check:
    members = collateral.members
    for certificate, authority, name in (
        (chain[0], chain[1], "pck_crl"),
        (chain[1], chain[2], "root_ca_crl"),
        (chain[2], chain[2], "root_ca_crl"),
    ):
        try:
            crl = x509.load_der_x509_crl(bytes.fromhex(members[name]))
            listed = crl.get_revoked_certificate_by_serial_number(certificate.serial)
            issuer = crl.issuer.public_bytes()
            signed = signed_by_intel(authority.spki_der, crl.signature, crl.tbs_certlist_bytes)
        except LIBRARY_ERRORS as error:
            return failed("quote-revocation", f"{name} cannot be read: {error}", hint=_FETCH)
        if issuer != certificate.issuer_der:
            return failed("quote-revocation", f"{name} is not of the issuer of {certificate.label}", hint=_FETCH)
        if not signed:
            return failed("quote-revocation", f"{name} is not signed by {authority.label}", hint=_FETCH)
        if listed is not None:
            return failed(
                "quote-revocation", f"Intel revoked {certificate.label} (serial {certificate.serial:x})",
                hint="this platform must not be used; ask its provider",
            )  # fmt: skip
    return passed("quote-revocation", "neither the PCK certificate nor its authority is listed")


def _check_state(body: TdBody) -> Check:
    attributes = body.attributes
    for wrong, detail, hint in (
        (attributes & _DEBUG, "it is in debug or profiling mode: the host can see into it",
         "start the guest without debug"),
        (attributes & _MIGRATABLE, "it is migratable", "start the guest without migration"),
        (not attributes & _SEPT_VE_DISABLE, "SEPT_VE_DISABLE is not set, so that the host can take its memory away",
         "start the guest with sept-ve-disable"),
    ):  # fmt: skip
        if wrong:
            return failed(
                "guest-state", f"not a trust domain that this verifier accepts: {detail}",
                expected="no debug, not migratable, SEPT_VE_DISABLE", found=f"attributes {attributes:#x}",
                hint=hint,
            )  # fmt: skip
    return passed("guest-state", f"no debug, not migratable, attributes {attributes:#x}")


def _verify(quote: bytes, collateral: TdxCollateral, anchors: CpuAnchors, at: datetime) -> dict[str, Any] | str:
    """The claims of the library, or its words of refusal. The one place that calls it."""
    try:
        import dcap_qvl
    except ImportError:
        raise _unusable("is not installed") from None
    # Versions before 0.3.9 do not verify the quoting enclave's identity (CVE-2026-22696), and each minor one has
    # another interface.
    version = getattr(dcap_qvl, "__version__", "without a number")
    if not version.startswith(_LIBRARY):
        raise _unusable(f"is here in version {version}")
    seconds = int(at.timestamp())
    try:
        verifier = dcap_qvl.QuoteVerifier(anchors.intel_der) if anchors.intel_der else dcap_qvl.QuoteVerifier()
        read = dcap_qvl.QuoteCollateralV3.from_json(collateral.text)
        policy = dcap_qvl.QuotePolicy.claims_only(seconds)
        claims: dict[str, Any] = json.loads(verifier.verify_with_policy(quote, read, seconds, policy).to_json())
    except (ValueError, OverflowError) as error:
        return str(error).removeprefix("Verification failed: ")
    except BaseException as error:
        # A panic of the library is no Exception, and no verdict either.
        if type(error).__name__ != "PanicException":
            raise
        return "the library gave up"
    return claims


def _unusable(how: str) -> InputError:
    hint = "pip install 'dcap-qvl>=0.7,<0.8' (the extra tdx)"
    return InputError(f"TDX quotes are verified with dcap-qvl 0.7, which {how}", code="tdx-missing", hint=hint)


def _refused(reason: str) -> list[Check]:
    for beginnings, name, detail, hint in _NO_FORGERY:
        if reason.startswith(beginnings):
            why = f"dcap-qvl refuses it before it gives a result ({reason})"
            return [skipped("quote-signature", why), failed(name, f"{detail}: {reason}", hint=hint)]
    detail = f"the quote, or what Intel signed for it, is not verified: {reason}"
    return [failed("quote-signature", detail, hint=_CHANGED)]


def _contradiction(claims: Mapping[str, Any], body: TdBody) -> str:
    """What the library has verified is what our parser has read; anything else is no verified quote."""
    report: Any = next(iter(claims["report"].values()), {})
    while isinstance(report, dict) and "base" in report:
        report = report["base"]
    ours = {
        "mr_td": body.mrtd,
        "mr_seam": body.mr_seam,
        "mr_config_id": body.mr_config_id,
        "td_attributes": body.attributes.to_bytes(8, "little"),
        "report_data": body.report_data,
        **{f"rt_mr{number}": value for number, value in enumerate(body.rtmrs)},
    }
    wrong = [name for name, value in ours.items() if report.get(name) != value.hex()]
    return f"the verified report differs from the quote that was read: {', '.join(wrong)}" if wrong else ""


def _evaluation(claims: Mapping[str, Any]) -> int:
    """The older of the evaluation numbers of TCB info and QE identity: an attester chooses both."""
    return min(int(claims["tcb"]["eval_data_number"]), int(claims["qe"]["tcb_eval_data_number"]))


def _check_tcb(claims: Mapping[str, Any], demands: TdxDemands) -> Check:
    status, advisories = claims["tcb"]["status"], claims["tcb"]["advisory_ids"]
    evaluation, tcb_date = _evaluation(claims), claims["platform"]["tcb_level"]["tcbDate"]
    listed = ", ".join(advisories)
    if status not in demands.tcb_status:
        return failed(
            "quote-tcb", "Intel's TCB level of the platform is not accepted",
            expected=" or ".join(demands.tcb_status), found=f"{status} ({listed})" if advisories else status,
            hint=_UPDATE.format("tcb_status and advisories_allowed"),
        )  # fmt: skip
    if standing := [name for name in advisories if name not in demands.advisories_allowed]:
        return failed(
            "quote-tcb", "advisories are open that the policy does not allow",
            expected=", ".join(demands.advisories_allowed) or "none", found=", ".join(standing),
            hint=_UPDATE.format("advisories_allowed"),
        )  # fmt: skip
    if evaluation < demands.minimum_tcb_evaluation:
        return failed(
            "quote-tcb", "the collateral is of an older evaluation than the policy accepts",
            expected=f"at least {demands.minimum_tcb_evaluation}", found=str(evaluation), hint=_FETCH,
        )  # fmt: skip
    date = parse_time(tcb_date).date()
    if demands.minimum_tcb_date is not None and date < demands.minimum_tcb_date:
        return failed(
            "quote-tcb", "the platform's TCB level is older than the policy accepts",
            expected=f"{demands.minimum_tcb_date} or later", found=str(date), hint=_UPDATE.format("minimum_tcb_date"),
        )  # fmt: skip
    said = f"{status}, advisories {listed or 'none'}, evaluation {evaluation}, TCB of {tcb_date[:10]}"
    return passed("quote-tcb", said, expected=" or ".join(demands.tcb_status))
