"""The reader of saved appraisals (``schemas/appraisal-1.json``), for text and page alike.

Each view below mirrors one object of the schema and has the names of the members that are shown. ``_read`` fills a view
by the types that it declares, so that the declarations are the reader. It accepts files of other versions and files
that lack anything: a value of another type counts as missing. Text is cleaned as it is read. ``decide`` makes the
verdict again from the checks, so that a file cannot claim more than they say.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import NoneType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

from nvattest._documents import JsonObject
from nvattest._registry import NO_PDI
from nvattest._text import clean
from nvattest.appraisal import FORMAT, VERSION
from nvattest.appraisal.check import (
    CHECKS,
    MAKERS,
    REQUIRED,
    REQUIRED_GUEST,
    REQUIRED_PLATFORM,
    VERIFIED,
    Outcome,
    acceptable,
    decide,
    refused,
    unproven,
)
from nvattest.errors import InputError, ResultCode
from nvattest.model import DeviceKind
from nvattest.report.terminal import listed

if TYPE_CHECKING:
    from nvattest.appraisal.results import Appraisal

PLATFORM: Final = "PLATFORM"
GUEST: Final = "GUEST"
_MAXIMUM_ITEMS: Final = 4096
_MAXIMUM_DEVICES: Final = 256
_MAXIMUM_INDEX: Final = 511


class CheckView(NamedTuple):
    """One check. ``device`` is the label of its device, ``PLATFORM`` for the whole; ``acceptable`` is decided here."""

    id: str = "?"
    step: int | None = None
    title: str = ""
    outcome: str = "unknown"
    detail: str = ""
    expected: str = ""
    found: str = ""
    hint: str = ""
    tolerated_by: str = ""
    device: str = ""
    acceptable: bool = False

    @property
    def failed(self) -> bool:
        """It prevents trust by itself, and not only because an earlier check left nothing to look at."""
        return not self.acceptable and self.outcome != "skipped"


class Checks(tuple[CheckView, ...]):
    """The checks of one device, of the guest or of the platform, in the order of the story."""

    __slots__ = ()

    @property
    def failures(self) -> tuple[CheckView, ...]:
        return tuple(check for check in self if not check.acceptable)

    def passed(self, *ids: str) -> bool:
        """Whether all checks of these names are there and passed."""
        outcomes = {check.id: check.outcome for check in self}
        return all(outcomes.get(name) == "pass" for name in ids)


class RevocationView(NamedTuple):
    status: str = "unknown"
    reason: str = ""
    source: str = ""
    this_update: str = ""
    next_update: str = ""
    responder: str = ""
    detail: str = ""

    @property
    def good(self) -> bool:
        """The answer is good; what the policy makes of another status stands in the check."""
        return self.status == "good"

    @property
    def signer(self) -> str:
        return common_name(self.responder)

    @property
    def why(self) -> str:
        """The reason, where it says more than the status."""
        return self.reason if self.reason != self.status else ""


class CertificateView(NamedTuple):
    subject: str = "?"
    not_before: str = ""
    not_after: str = ""
    revocation: RevocationView | None = None

    @property
    def name(self) -> str:
        return common_name(self.subject)


class FindingView(NamedTuple):
    """What is wrong with a chain; ``position`` is that of the certificate, None for the whole."""

    rule: str = ""
    position: int | None = None
    message: str = ""


class ChainView(NamedTuple):
    """One chain, leaf first."""

    anchor: str = ""
    path_ok: bool = False
    findings: tuple[FindingView, ...] = ()
    certificates: tuple[CertificateView, ...] = ()


class RimView(NamedTuple):
    role: str = "?"
    id: str = "?"
    source: str = ""
    origin: str = ""
    sha256: str = ""
    version: str = ""
    product: str = ""
    edition: str = ""
    chain: ChainView | None = None


class CellView(NamedTuple):
    """One measurement: golden index, state, the RIM that covers it, its alternatives and the runtime value (hex)."""

    index: int = -1  # type: ignore[assignment]  # hides tuple.index
    state: str = "unknown"
    source: str = ""
    golden: tuple[str, ...] = ()
    runtime: str = ""

    @property
    def bad(self) -> bool:
        return self.state in ("mismatched", "missing")


class SvnView(NamedTuple):
    name: str = "?"
    minimum: int | None = None
    runtime: int | None = None
    satisfied: bool = False


class IdentityView(NamedTuple):
    """Who the device is, by its certificates."""

    ueid: str = ""
    hwmodel: str = ""
    pdi: str = ""
    chip: str = ""


class ReportView(NamedTuple):
    """What the signed report says, of a GPU or of a switch."""

    driver_version: str = ""
    vbios_version: str = ""
    bios_version: str = ""
    mode: str = ""
    project: str = ""
    project_sku: str = ""
    chip_sku: str = ""
    opaque_layout: str = ""
    opaque_version: str = ""
    switch_pdis: tuple[str, ...] = ()
    gpu_pdis: tuple[str, ...] = ()

    @property
    def firmware_version(self) -> str:
        return self.vbios_version or self.bios_version

    @property
    def versions(self) -> str:
        named = (("driver", self.driver_version), ("vbios", self.vbios_version), ("bios", self.bios_version))
        return ", ".join(f"{name} {version}" for name, version in named if version)

    @property
    def board(self) -> str:
        return "/".join(part for part in (self.project, self.project_sku, self.chip_sku) if part)

    @property
    def opaque(self) -> str:
        return f"{self.opaque_layout} {self.opaque_version}".strip()

    @property
    def neighbours(self) -> tuple[str, ...]:
        """The PDIs of the devices that this one names as linked to it."""
        return tuple(pdi for pdi in self.switch_pdis or self.gpu_pdis if pdi != NO_PDI)


class DeviceView(NamedTuple):
    """One device. ``trusted`` is decided here; ``measurements`` are None where nothing was compared."""

    label: str = ""
    kind: str = DeviceKind.GPU.value
    architecture: str = ""
    trusted: bool = False
    origin: str = ""
    report_sha256: str = ""
    chain_sha256: str = ""
    identity: IdentityView = IdentityView()
    report: ReportView = ReportView()
    chain: ChainView | None = None
    rims: tuple[RimView, ...] = ()
    measurements: tuple[CellView, ...] | None = None
    minimum_svn: tuple[SvnView, ...] = ()
    checks: Checks = Checks()

    @property
    def is_switch(self) -> bool:
        return self.kind == DeviceKind.NVSWITCH.value

    @property
    def known_as(self) -> str:
        """Its model, or else its architecture."""
        return self.identity.hwmodel or self.architecture

    @property
    def covered(self) -> tuple[CellView, ...]:
        return tuple(cell for cell in self.measurements or () if cell.state != "not-covered")

    @property
    def bad_cells(self) -> tuple[CellView, ...]:
        return tuple(cell for cell in self.measurements or () if cell.bad)

    def rim(self, role: str) -> RimView | None:
        return next((rim for rim in self.rims if rim.role == role), None)

    def names(self, other: DeviceView) -> bool:
        """Whether its report names another device as linked to it."""
        return other.identity.pdi in self.report.neighbours


class GuestView(NamedTuple):
    """The guest, judged by its CPU's quote. ``trusted`` is decided here."""

    kind: str = ""
    trusted: bool = False
    quote_signature_verified: bool = False
    sentence: str = ""
    recipe: str = ""
    strength: str = ""
    key: str = ""
    at: str = ""
    anchors: str = "not recorded"
    weakened: tuple[str, ...] = ()
    measurement: str = ""
    registers: tuple[str, ...] = ()
    level: str = ""
    root: str = ""
    endorsement: str = ""
    not_after: str = ""
    good_until: str = ""
    checks: Checks = Checks()

    @property
    def maker(self) -> str:
        """Intel TDX or AMD SEV-SNP."""
        return MAKERS.get(self.kind, "unknown CPU")


class At(NamedTuple):
    """The clock that validity was judged by."""

    device: str = ""
    rim: str = ""


class AppraisalView(NamedTuple):
    """An appraisal. ``trusted`` is decided here; ``notices`` are what a reader must know of the file."""

    trusted: bool = False
    result_code: int | None = None
    result_message: str = ""
    nonce: str = ""
    at: At = At()
    anchors: str = "not recorded"
    # A file that does not say that it is real is not taken for real.
    simulated: bool = True
    weakened: tuple[str, ...] = ()
    checks: Checks = Checks()
    devices: tuple[DeviceView, ...] = ()
    guest: GuestView | None = None
    policy: tuple[tuple[str, str], ...] = ()
    notices: tuple[str, ...] = ()

    @property
    def failures(self) -> tuple[CheckView, ...]:
        """All checks that prevent trust; causes before what follows from them."""
        found = [check for part in self.parts for check in part.failures]
        return tuple(sorted(found, key=lambda check: check.outcome == "skipped"))

    @property
    def parts(self) -> list[Checks]:
        """The checks of each device, of the platform, and of the guest where there is one."""
        guest = [] if self.guest is None else [self.guest.checks]
        return [*(device.checks for device in self.devices), self.checks, *guest]

    @property
    def causes(self) -> tuple[CheckView, ...]:
        """The failures that are not mere consequences of another one."""
        bad = not all(device.trusted for device in self.devices)
        following = {"devices-trusted", *(("guest-devices",) if bad else ())}
        return tuple(check for check in self.failures if check.failed and check.id not in following) or self.failures

    @property
    def clock(self) -> str:
        """The time or times that validity was judged at."""
        if self.at.device == self.at.rim or not self.at.rim:
            return self.at.device or "not recorded"
        return f"{self.at.device} (device), {self.at.rim} (RIMs)"

    def device(self, label: str) -> DeviceView | None:
        """The device of this label, whatever its case."""
        return next((device for device in self.devices if device.label.upper() == label.upper()), None)

    def demand(self, label: str) -> DeviceView:
        """The device of this label, which the user named.

        Raises:
            InputError: there is none; the message names those that are there.
        """
        found = self.device(label)
        if found is None:
            labels = listed([device.label for device in self.devices], maximum=16) or "none"
            raise InputError(f"there is no device {clean(label, 80)!r} in this appraisal; there are {labels}")
        return found


# --- the document -----------------------------------------------------------------------------------------------------


def is_appraisal(document: object) -> bool:
    """Whether a JSON value is an appraisal, of whatever version."""
    return isinstance(document, dict) and document.get("format") == FORMAT


def view_of(appraisal: Appraisal) -> AppraisalView:
    """An appraisal just made, seen as its JSON says it: what ``attest`` shows is what ``explain`` shows of its file."""
    from nvattest.appraisal.results import appraisal_to_json

    return read_appraisal(appraisal_to_json(appraisal))


def read_appraisal(document: object) -> AppraisalView:
    """Read an appraisal for display.

    Raises:
        InputError: it is no appraisal at all (``explain-format``).
    """
    if not isinstance(document, dict) or not is_appraisal(document):
        raise InputError("this is not an appraisal", code="explain-format", hint="give the output of attest -f json")
    members = _members(document, "devices")[:_MAXIMUM_DEVICES]
    devices = tuple(_device(member, index) for index, member in enumerate(members))
    checks = _checks(document, PLATFORM)
    guest = read_guest(item(document, "guest")) if document.get("guest") is not None else None
    claimed = flag(document.get("trusted"))
    trusted = (
        number(document.get("result_code")) == ResultCode.OK
        # What was left out may have failed.
        and _whole(document, "checks", checks)
        and _whole(document, "devices", devices)
        and decide(checks, REQUIRED_PLATFORM, devices=[device.trusted for device in devices])
        and (guest is None or guest.trusted)
    )
    policy = sorted(item(document, "policy").items())[:128]
    view = _read(
        AppraisalView, document, trusted=trusted and claimed is True, checks=checks, devices=devices, guest=guest,
        policy=tuple((clean(name, 100), _words(value)) for name, value in policy), notices=(),
    )  # fmt: skip
    return view._replace(notices=tuple(_notices(document, claimed, trusted, view)))


# The members of a guest that are its verified quote's.
_SAID: Final = ("measurement", "registers", "report_data", "level", "tcb", "endorsement", "collateral")


def read_guest(document: JsonObject) -> GuestView:
    """Read the appraisal of a guest for display; ``trusted`` is decided anew."""
    checks, kind = _checks(document, GUEST), text(document, "kind")
    good = {check.id for check in checks if check.acceptable}
    verified = flag(document.get("quote_signature_verified")) is True and good.issuperset(VERIFIED)
    trusted = verified and _whole(document, "checks", checks) and decide(checks, REQUIRED_GUEST)
    trusted = trusted and flag(document.get("trusted")) is True
    sentence = text(document, "sentence")
    if not verified:
        # Nothing that a quote says is shown whose checks do not say that it was verified, whatever the file holds.
        document = {name: value for name, value in document.items() if name not in _SAID}
        sentence = unproven(kind)
    elif not trusted:
        failures = [check.id for check in checks.failures]
        sentence = refused(kind, text(document, "measurement"), text(document, "level"), failures)
    endorsement = item(document, "endorsement")
    return _read(
        GuestView, document, checks=checks, trusted=trusted, quote_signature_verified=verified, sentence=sentence,
        root=text(endorsement, "root"), endorsement=text(endorsement, "kind").upper(),
        not_after=text(endorsement, "not_after"), good_until=text(item(document, "collateral"), "good_until"),
    )  # fmt: skip


def _notices(document: JsonObject, claimed: bool | None, trusted: bool, view: AppraisalView) -> Iterator[str]:
    version = number(document.get("version"))
    if version is None:
        yield "The file does not say which version of the format it has; what is missing is left out."
    elif version > VERSION:
        yield (
            f"The file has version {version} of the format, newer than this program ({VERSION}): it may say more than "
            "is shown here. Explain it with the nvattest that made it."
        )
    elif version < VERSION:
        older = f"The file has version {version} of the format, older than this program ({VERSION})"
        yield f"{older}: what it lacks is left out."
    if unknown := sorted({check.id for part in view.parts for check in part if check.id not in CHECKS}):
        yield f"This program does not know the checks {', '.join(unknown[:8])}; they are shown as they stand."
    if claimed and not trusted:
        yield (
            "The file says that the platform is trusted, but its checks do not: it was changed or cut short, or made "
            "by another version. Nothing in it counts as trusted here."
        )
    if claimed is None:
        yield "The file holds no verdict, so that nothing in it counts as trusted here."


def _device(document: JsonObject, position: int) -> DeviceView:
    label = text(document, "label", f"device {position}")
    checks = _checks(document, label)
    required = {kind.value: REQUIRED[kind] for kind in DeviceKind}.get(text(document, "kind", "gpu"))
    trusted = required is not None and _whole(document, "checks", checks) and decide(checks, required)
    trusted = trusted and flag(document.get("trusted")) is True
    device = _read(DeviceView, document, label=label, checks=checks, trusted=trusted)
    if device.measurements is None:
        return device
    cells = {cell.index: cell for cell in device.measurements if 0 <= cell.index <= _MAXIMUM_INDEX}
    return device._replace(measurements=tuple(cells[index] for index in sorted(cells)))


def _checks(document: JsonObject, device: str) -> Checks:
    return Checks(_check(member, device) for member in _members(document, "checks"))


def _check(document: JsonObject, device: str) -> CheckView:
    check = _read(CheckView, document, device=device)
    step, title = check.step, check.title or check.id
    spec = CHECKS.get(check.id)
    if spec is not None:
        step, title = step or spec.step, spec.title
    allowed = check.outcome in _OUTCOMES and acceptable(_OUTCOMES[check.outcome], check.tolerated_by)
    allowed = allowed and flag(document.get("acceptable")) is not False
    return check._replace(step=step, title=title, acceptable=allowed)


_OUTCOMES: Final = {outcome.value: outcome for outcome in Outcome}


def _members(document: JsonObject, name: str) -> tuple[JsonObject, ...]:
    """The objects of an array; others are left out, as is what is beyond the limit."""
    value = document.get(name)
    members = value[:_MAXIMUM_ITEMS] if isinstance(value, list) else ()
    return tuple(member for member in members if isinstance(member, dict))


def _whole(document: JsonObject, name: str, read: Sequence[object]) -> bool:
    """Whether every member of the array was read."""
    value = document.get(name)
    return isinstance(value, list) and len(value) == len(read)


def _words(value: object) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_words(member) for member in value[:32]) or "not set"
    return text({"value": value}, "value", "?")


# --- values: each has the type that is asked for, or is not there -----------------------------------------------------


View = TypeVar("View")


def _read(view: type[View], source: JsonObject, **decided: object) -> View:
    """One object of the schema: each member by its declared type, its default where the file has none of that type."""
    values = dict(decided)
    for name, parse in _members_of(view):  # type: ignore[arg-type]
        if name not in decided and (value := parse(source.get(name))) is not None:
            values[name] = value
    return view(**values)


@functools.cache
def _members_of(view: type) -> tuple[tuple[str, Callable[[object], object]], ...]:
    return tuple((name, _parser(hint)) for name, hint in get_type_hints(view).items())


def _parser(hint: Any) -> Callable[[object], object]:
    """How a value becomes one of this type, or None."""
    if hint in _SCALARS:
        return _SCALARS[hint]
    kinds = [kind for kind in get_args(hint) if kind not in (NoneType, Ellipsis)]
    if get_origin(hint) is tuple:
        one, limit = _parser(kinds[0]), _LIMITS.get(kinds[0], _MAXIMUM_ITEMS)

        def several(value: object) -> tuple[object, ...] | None:
            if not isinstance(value, list):
                return None
            members = map(one, value[:limit])
            return tuple(member for member in members if member is not None)

        return several
    if kinds:
        return _parser(kinds[0])

    def one_object(value: object) -> object:
        return _read(hint, value) if isinstance(value, dict) and value else None

    return one_object


def _text(value: object) -> str | None:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if abs(value) < 10**30 else "a very long number"
    return f"{value:g}" if isinstance(value, float) else None


def number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def flag(value: object) -> bool | None:
    """A boolean, or None: never a guess."""
    return value if isinstance(value, bool) else None


_LIMITS: Final[Mapping[Any, int]] = {CertificateView: 16, CellView: 512}
_SCALARS: Final[Mapping[Any, Callable[[object], object]]] = {str: _text, int: number, bool: flag}


def text(source: JsonObject, key: str, default: str = "") -> str:
    """A text; a number becomes one, anything else is ``default``."""
    found = _text(source.get(key))
    return default if found is None else found


def item(source: JsonObject, key: str) -> JsonObject:
    """An object; empty where it is missing or something else."""
    value = source.get(key)
    return value if isinstance(value, dict) else {}


def common_name(name: str) -> str:
    """The CN of an RFC 4514 name, or the whole name. For display only: escapes are kept as they are."""
    found = _COMMON_NAME.search(name)
    return found[1] if found is not None else name


# A part begins at the start or behind a comma that is not escaped.
_COMMON_NAME: Final = re.compile(r"(?:^|(?<!\\)(?:\\\\)*,)CN=((?:[^,\\]|\\.?)*)", re.DOTALL)
