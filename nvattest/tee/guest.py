"""The guest: its CPU's quote judged beside its devices. Steps 26 to 38 of the story; pure functions.

26  the quote can be read, and the policy accepts its kind
27  the maker's collateral is there, belongs to the quote and is current
28  the endorsement chain leads to the maker's pinned root
29  no certificate in it is revoked
30  the quote's signature
31  the firmware's level: TCB status and advisories, or floors
32  chip, generation and firmware are those of the certificate
33  the guest is closed to its host: not in debug, not migratable, at an allowed level
34  its measurements
35  the report data is what the recipe demands of challenge, key and evidence
36  the key that speaks for the guest is the expected one
37  the devices answered the nonce that the recipe demands
38  the devices that the quote covers are those that were judged, and are trusted

27 to 33 are the maker's (``tdx``, ``snp``). What depends on a failed step is skipped, and nothing in the quote is a
fact before 30. No step shows that the devices are attached to this guest: evidence can be relayed until TDISP is there.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Final

from nvattest.appraisal.check import MAKERS, Check, failed, not_made, passed, skipped
from nvattest.appraisal.guest import CpuPolicy, DeviceSide, GuestAppraisal, GuestFacts, SnpDemands, Strength, TdxDemands
from nvattest.appraisal.identity import identity_of
from nvattest.errors import InputError, NvattestError, ParseError
from nvattest.evidence import load_evidence
from nvattest.model import counted
from nvattest.pki.anchors import CPU_ANCHORS, CpuAnchors
from nvattest.pki.certificate import parse_pem_chain
from nvattest.spdm.report import parse_report
from nvattest.tee.collateral import CpuCollateral, SnpCollateral, TdxCollateral, read_auxiliary
from nvattest.tee.quote import ParsedQuote, QuoteFile, QuoteKind, SnpReport, TdBody, parse_quote, read_quote_file
from nvattest.tee.recipes import Demand, Recipe
from nvattest.tee.snp import appraise_snp
from nvattest.tee.tdx import appraise_tdx

_COVERED: Final = {
    Strength.KEY_AND_EVIDENCE: "it covers the key and this evidence",
    Strength.NONCE_ONLY: "it covers the nonce, and no evidence",
    Strength.NOTHING: "it is what you expect; what it covers cannot be seen here",
}
_QUOTE: Final = "take it as attest --bind-tee writes it, or raw from the kernel, whole and unchanged"
_INPUT: Final = "check the recipe's inputs, and whether this token is one for it"
_AGAIN: Final = "ask the guest again, with a new challenge"
# Steps 27 to 34 of the story, in order, and 35 to 38.
_ENDORSED: Final = (
    "quote-collateral", "quote-chain", "quote-revocation", "quote-signature", "quote-tcb", "quote-chip",
    "guest-state", "guest-measurements",
)  # fmt: skip
_BOUND: Final = ("guest-binding", "guest-key", "guest-nonce", "guest-devices")
_Demands = TdxDemands | SnpDemands


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """A guest to be judged with its devices: what it gave, and what is demanded of it.

    Args:
        quote: the file of its quote, as ``--bind-tee`` writes it, or a raw one.
        policy: what is demanded of the guest.
        recipe: how the report data is computed, such as ``Challenge(challenge=...)``.
        collateral: the maker's: Intel's document, or AMD's certificates and lists. What a quote file of AMD's carries
            itself is taken, too.
        anchors: the makers' pinned roots by default.
        at: the instant at which quote and collateral are judged; that of the devices by default.

    Raises:
        InputError: an argument of another type, or an instant without a time zone.
    """

    quote: bytes = field(repr=False)
    policy: CpuPolicy
    recipe: Recipe
    collateral: CpuCollateral | None = None
    anchors: CpuAnchors = CPU_ANCHORS
    at: datetime | None = None

    def __post_init__(self) -> None:
        if type(self.quote) is not bytes:
            raise InputError(f"a quote is the bytes of its file, not {type(self.quote).__name__}", code="format")
        for name, value, kinds, make in (
            ("policy", self.policy, CpuPolicy, "load_cpu_policy"),
            ("recipe", self.recipe, Recipe, "Challenge"),
            ("collateral", self.collateral, TdxCollateral | SnpCollateral | None, "parse_collateral"),
            ("anchors", self.anchors, CpuAnchors, "testing.SimulatedGuest.anchors"),
        ):
            if not isinstance(value, kinds) or isinstance(value, type):
                raise InputError(
                    f"the {name} of a guest cannot be {type(value).__name__}", code="format", hint=f"nvattest.{make}"
                )
        if self.at is not None and self.at.utcoffset() is None:
            raise InputError("the time of the quote has no time zone", code="time-zone")

    def appraise(self, devices: DeviceSide, at: datetime) -> GuestAppraisal:
        """All steps. A bad quote, collateral or binding raises nothing: it fails its checks.

        Raises:
            InputError: TDX quotes are verified with an extra that is not installed (code ``tdx-missing``).
        """
        at = self.at if self.at is not None else at
        kind, facts, demand = "", None, None
        try:
            file = read_quote_file(self.quote)
            quote = parse_quote(file.quote)
        except ParseError as error:
            checks = [failed("quote-format", error.message, hint=error.hint or _QUOTE)]
            checks += (not_made(name, "the quote cannot be read") for name in (*_ENDORSED, *_BOUND))
        else:
            kind = quote.kind.value
            demands = self.policy.tdx if quote.kind is QuoteKind.TDX else self.policy.snp
            made, said = self._verify(file, quote, demands, at)
            why = said if isinstance(said, str) else ""
            if isinstance(said, GuestFacts) and demands is not None:
                facts = said
                made.append(_check_measurements(quote.body, demands))
            by_id = {check.id: check for check in made}
            bound, demand = _check_devices(quote, facts, self.recipe, devices)
            checks = [
                _check_format(quote, demands),
                *(by_id[name] if name in by_id else not_made(name, why) for name in _ENDORSED),
                *bound,
            ]
        return GuestAppraisal(
            kind=kind,
            checks=tuple(checks),
            facts=facts,
            recipe=self.recipe.name,
            strength=Strength.NOTHING if demand is None else demand.strength,
            key=None if demand is None else demand.key,
            devices=devices.number,
            policy=self.policy,
            at=at,
            anchors=self.anchors.label,
            simulated=self.anchors.simulated,
        )

    def _verify(
        self, file: QuoteFile, quote: ParsedQuote, demands: _Demands | None, at: datetime
    ) -> tuple[list[Check], GuestFacts | str]:
        """The maker's steps as far as they are made, and what the quote says, or why that is not known."""
        body, collateral = quote.body, self.collateral
        if demands is None:
            return [], "the policy accepts no such quote"
        why = "there is no usable collateral"
        if (
            isinstance(body, SnpReport)
            and isinstance(demands, SnpDemands)
            and not isinstance(collateral, TdxCollateral)
        ):
            caller = collateral or SnpCollateral()
            try:
                # The caller's first: what the host put beside the quote does not hide it.
                both = caller + read_auxiliary(file.auxiliary)
                verified = appraise_snp(body, both, demands, self.anchors, at)
            except ParseError as error:
                both = None
                verified = [failed("quote-collateral", error.message, hint=_QUOTE)], why
            if verified[0][0].acceptable or collateral is None or both == caller:
                return verified
            # Nor does what of it cannot be read.
            alone = appraise_snp(body, caller, demands, self.anchors, at)
            return alone if alone[0][0].acceptable else verified
        if isinstance(body, TdBody) and isinstance(demands, TdxDemands) and isinstance(collateral, TdxCollateral):
            return appraise_tdx(quote, body, collateral, demands, self.anchors, at)
        detail = "there is none" if collateral is None else "it is of the other maker"
        hint = "get it with nvattest bundle fetch --tee-quote"
        return [failed("quote-collateral", detail, expected=MAKERS[quote.kind.value], hint=hint)], why


def _check_format(quote: ParsedQuote, demands: _Demands | None) -> Check:
    maker = MAKERS[quote.kind.value]
    if demands is None:
        table = "tdx" if quote.kind is QuoteKind.TDX else "snp"
        accepted = (name for name in MAKERS.values() if name != maker)
        return failed(
            "quote-format", f"the policy accepts no quote of {maker}", expected=" or ".join(accepted), found=maker,
            hint=f"to accept them, write a table [{table}] into the CPU policy, and {table!r} into its kinds",
        )  # fmt: skip
    return passed("quote-format", f"{maker}, version {quote.version}")


def _check_measurements(body: TdBody | SnpReport, demands: _Demands) -> Check:
    """Step 34: each value is one of those that the policy's field of its name lists; an empty list demands nothing."""
    values = body._asdict()
    if isinstance(body, TdBody):
        values |= {f"rtmr{number}": value for number, value in enumerate(body.rtmrs)}
    names = [item.name for item in fields(demands) if item.name in values and getattr(demands, item.name)]
    wrong = [name for name in names if values[name].hex() not in getattr(demands, name)]
    if wrong:
        allowed = getattr(demands, wrong[0])
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        return failed(
            "guest-measurements", f"{wrong[0]} is none of the policy's{more}",
            expected=" or ".join(allowed[:4]) + (" or …" if len(allowed) > 4 else ""), found=values[wrong[0]].hex(),
            hint="this is another guest, or another build of it: compare with what you built",
        )  # fmt: skip
    demanded = ", ".join(names)
    if demands.measurements is not None:
        beside = f", with {demanded}" if demanded else ""
        return passed("guest-measurements", f"weakened: any guest counts{beside}")
    return passed("guest-measurements", demanded)


def check_answers(demand: Demand, devices: DeviceSide) -> Check:
    """What a demand says of the devices alone, for a quote that is not judged: 37, and of trusted devices 38."""
    nonce = _check_nonce(demand, devices)
    return _check_covered(demand, devices) if nonce.acceptable and devices.trusted else nonce


def _check_devices(
    quote: ParsedQuote, facts: GuestFacts | None, recipe: Recipe, devices: DeviceSide
) -> tuple[list[Check], Demand | None]:
    """Steps 35 to 38, and the recipe's demand where the quote meets it."""
    try:
        demand = recipe.demand(devices)
    except InputError as error:
        why = "the recipe demands nothing that can be compared"
        return [
            failed("guest-binding", error.message, hint=_INPUT),
            *(not_made(name, why) for name in _BOUND[1:]),
        ], None
    binding = _check_binding(quote, facts, demand)
    checks = [
        binding,  # (35)
        _check_key(demand, devices, binding),  # (36)
        _check_nonce(demand, devices),  # (37)
        _check_covered(demand, devices),  # (38)
    ]
    return checks, demand if binding.acceptable else None


def _check_binding(quote: ParsedQuote, facts: GuestFacts | None, demand: Demand) -> Check:
    if not hmac.compare_digest(quote.report_data, demand.report_data):
        return failed(
            "guest-binding", "the quote is bound to something else", expected=demand.report_data.hex(),
            found=quote.report_data.hex(),
            hint="the quote is of another guest or run, or challenge, key or evidence is another one",
        )  # fmt: skip
    if facts is None:
        return skipped("guest-binding", "the report data agrees, but the quote is not verified")
    return passed("guest-binding", _COVERED[demand.strength])


def _check_key(demand: Demand, devices: DeviceSide, binding: Check) -> Check:
    both = demand.thumbprint is not None and devices.key is not None
    if both and demand.thumbprint != devices.key:
        return failed(
            "guest-key", "the token is signed by another key than the one that the quote covers",
            expected=(demand.thumbprint or b"").hex(), found=(devices.key or b"").hex(),
            hint="the token was not made in this guest: ask it for its own",
        )  # fmt: skip
    if not binding.acceptable:
        return not_made("guest-key", "the report data does not cover what it has to")
    if both:
        return passed("guest-key", f"the token is signed by the key that the quote covers, {demand.key}")
    covered = f"the quote covers {demand.key}" if demand.key is not None else "the quote covers no key that is known"
    said = "no token stands between" if devices.key is None else "the token is signed by its issuer's key"
    return passed("guest-key", f"{covered}; {said}")


def _check_nonce(demand: Demand, devices: DeviceSide) -> Check:
    if devices.nonce is None:
        return failed("guest-nonce", "the devices' nonce is not known", hint="say which nonce you sent")
    if demand.nonce is None:
        return passed("guest-nonce", f"{devices.nonce.hex()[:16]}…, which you sent; the recipe leaves it to you")
    if not hmac.compare_digest(demand.nonce, devices.nonce):
        return failed(
            "guest-nonce", "the devices were judged for another nonce than the recipe demands",
            expected=demand.nonce.hex(), found=devices.nonce.hex(),
            hint=f"devices and guest were asked apart, or the nonce was exchanged: {_AGAIN}",
        )  # fmt: skip
    return passed("guest-nonce", f"{devices.nonce.hex()[:16]}…")


def _check_covered(demand: Demand, devices: DeviceSide) -> Check:
    if not devices.number or not devices.trusted:
        detail = "the devices are not trusted" if devices.number else "there is no device"
        return failed("guest-devices", detail, hint="see the checks of the devices")
    seen = f"{counted(devices.number, 'device')}, trusted"
    if not demand.evidence:
        return passed("guest-devices", seen)
    try:
        covered = [item for text in demand.evidence for item in load_evidence(text)]
        identities = sorted(identity_of(parse_pem_chain(item.certificate_chain)).ueid for item in covered)
        nonces = {parse_report(item.report, item.kind).request.nonce for item in covered}
    except NvattestError as error:
        return failed(
            "guest-devices", f"the evidence that the quote covers cannot be read: {error.message}", hint=_INPUT
        )
    reports = sorted(hashlib.sha256(item.report).hexdigest() for item in covered)
    if identities != sorted(devices.identities) or (devices.reports and reports != sorted(devices.reports)):
        return failed(
            "guest-devices", "the quote covers the evidence of other devices than those that were judged",
            expected=", ".join(identities), found=", ".join(sorted(devices.identities)),
            hint=f"evidence was exchanged between the guest and the verifier: {_AGAIN}",
        )  # fmt: skip
    if nonces != {devices.nonce}:
        found = ", ".join(sorted(nonce.hex() for nonce in nonces))
        return failed(
            "guest-devices", "the evidence that the quote covers answers another nonce",
            expected=(devices.nonce or b"").hex(), found=found, hint=_AGAIN,
        )  # fmt: skip
    return passed("guest-devices", f"{seen}, those whose evidence the quote covers")
