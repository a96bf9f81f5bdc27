"""The report page: an appraisal as one HTML file that needs nothing else, for auditors and tickets.

Jinja2 with autoescape draws it; no script is on it, and its content security policy allows none: whatever evidence
says, it stays text. The same appraisal gives the same bytes. Here the words and colours of the figures are chosen, and
what is placed on an axis; the template draws them.
"""

from __future__ import annotations

import base64
import hashlib
import os
from datetime import datetime, timedelta, timezone
from typing import Final, NamedTuple

from nvattest._package import __version__
from nvattest._registry import CPU_MAKERS
from nvattest._text import clean
from nvattest.errors import InputError, ResultCode
from nvattest.model import parse_time
from nvattest.report.catalogue import diagnose, disagreements, failures, telling
from nvattest.report.reading import GUEST, AppraisalView, ChainView, DeviceView, RimView
from nvattest.report.terminal import listed
from nvattest.report.text import SOURCES, count_states, grid, sources_of

_FOLDER: Final = os.path.dirname(os.path.abspath(__file__))
_TEMPLATE: Final = "template.html.j2"
_STYLE: Final = "report.css"


def report_page(
    view: AppraisalView, *, source: str = "", sha256: str = "", everything: bool = False, device: str | None = None
) -> str:
    """The page of an appraisal; ``source`` and ``sha256`` name the file that it was read from.

    Open on it is what failed (of several devices that failed alike, the first), or one device as an example; and the
    ``device`` of this label, or ``everything``, also on paper.

    Raises:
        InputError: there is no such device, or Jinja2 is not installed (``report-extra``).
    """
    try:
        import jinja2
    except ImportError as error:
        raise InputError(
            "a page needs Jinja2, which is not installed",
            code="report-extra",
            result_code=ResultCode.FEATURE_NOT_ENABLED,
            hint="pip install Jinja2 (the extra report); without --html the same is shown as text",
        ) from error
    labels = [entry.label for entry in view.devices]
    # One device of a trusted platform is shown open, as an example of what was checked.
    if everything:
        opened = set(labels)
    elif view.trusted:
        opened = set(labels[:1])
    else:
        opened = set(telling(view))
    if device is not None:
        opened.add(view.demand(device).label)
    with open(os.path.join(_FOLDER, _STYLE), encoding="utf-8") as file:
        style = _tidy(file.read())
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    digest = base64.b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode("ascii")
    page: str = environment.get_template(_TEMPLATE).render(
        view=view, style=style, program=__version__, source=clean(source), sha256=clean(sha256),
        policy=f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        subtitle=_subtitle(view), failures=[(failure, diagnose(failure.check, view)) for failure in failures(view)],
        guest=guest_diagram(view), topology=topology(view), timelines=timelines(view), opened=opened,
        folded=any(not entry.trusted and entry.label not in opened for entry in view.devices),
        sources=SOURCES, listed=listed, chunks=_chunks, places=grid, count_states=count_states, sources_of=sources_of,
        trust_diagram=trust_diagram,
    )  # fmt: skip
    return _tidy(page) + "\n"


def _tidy(text: str) -> str:
    """Without blank lines, which macros leave: the doctype must come first. The style is tidied before its digest."""
    return "\n".join(line.rstrip() for line in text.split("\n") if line.strip())


def _subtitle(view: AppraisalView) -> str:
    total = len(view.devices)
    word = "device" if total == 1 else "devices"
    if not total:
        return "The appraisal holds no device: nothing was proven."
    if view.trusted and view.guest is not None:
        return view.guest.sentence
    if view.trusted:
        return f"All required checks of {total} {word} and of the platform came out well."
    bad = [device.label for device in view.devices if not device.trusted]
    if bad and total == 1:
        return f"{bad[0]} is the only device, and it failed."
    if bad:
        return f"{len(bad)} of {total} devices failed: {listed(bad, maximum=4)}. A platform is trusted only as a whole."
    if view.causes:
        if view.guest is not None and all(check.device == GUEST for check in view.causes):
            passed = "The device" if total == 1 else f"Each of the {total} devices"
            return f"{passed} passed; the guest that asked did not."
        return f"Each of the {total} {word} passed for itself, and the platform as a whole did not."
    return "The file does not hold what a verdict needs."


def _chunks(text: str, size: int = 16) -> list[str]:
    """A long value in parts between which a line may break."""
    return [text[start : start + size] for start in range(0, len(text), size)] or [""]


# --- the trust-chain diagram ------------------------------------------------------------------------------------------


class Box(NamedTuple):
    """One box of a diagram. ``style`` is good, bad, warn or plain; ``lines`` are the small texts under the title."""

    title: str
    lines: tuple[str, ...]
    style: str


class Diagram(NamedTuple):
    """Columns of boxes, each with its heading; the last boxes of all stand in one row, above ``foot``."""

    columns: tuple[tuple[str, tuple[Box, ...]], ...]
    foot: Box | None = None


def trust_diagram(device: DeviceView) -> Diagram:
    """Device root to report on the left, RIM root to golden values beside it, and the comparison below both."""
    report = device.report
    signed = device.checks.passed("report-signature", "report-format")
    versions = " ".join(part for part in (report.driver_version, report.firmware_version) if part)
    said = (versions or "signed measurements", "signed by the leaf key" if signed else "SIGNATURE NOT GOOD")
    debug = next((check.found for check in device.checks if check.id == "debug" and check.outcome == "fail"), "")
    columns = [("Device", (*_certificates(device.chain, debug), Box("Report", said, "good" if signed else "bad")))]
    for rim in device.rims:
        title = {"driver": "Driver RIM", "vbios": "VBIOS RIM", "bios": "BIOS RIM"}.get(rim.role, "RIM")
        columns.append((title, (*_certificates(rim.chain), _golden_values(device, rim))))
    if not device.checks.passed("measurements"):
        style = "bad"
    else:
        style = "good" if all(boxes[-1].style == "good" for _, boxes in columns) else "warn"
    return Diagram(tuple(columns), Box("Measurements", (_compared(device),), style))


def guest_diagram(view: AppraisalView) -> Diagram | None:
    """The guest as the root of the picture: the maker's root, the endorsement key, the quote, and below it the devices.

    None where no quote was judged.
    """
    guest = view.guest
    if guest is None:
        return None
    chain = "good" if guest.checks.passed("quote-chain", "quote-revocation") else "bad"
    own = [check.id for check in guest.checks.failures]
    own = [name for name in own if not name.startswith("quote-") and name != "guest-devices"]
    bound = guest.checks.passed("guest-binding", "guest-nonce")
    good = sum(device.trusted for device in view.devices)
    root = "pinned root" if guest.anchors == CPU_MAKERS else f"root of {shorten(guest.anchors, 24)} anchors"
    said = "signature verified" if guest.quote_signature_verified else "NOT VERIFIED"
    said = f"REFUSED BY {', '.join(own[:2]).upper()}" if guest.quote_signature_verified and own else said
    ends = guest.not_after[:10]
    boxes = (
        Box(shorten(guest.root or f"{guest.maker}: root"), (root if chain == "good" else "NOT SHOWN",), chain),
        Box(shorten(guest.endorsement or "Endorsement key"), (ends and f"until {ends}",), chain),
        Box(
            f"Guest, {guest.maker}",
            (shorten(guest.measurement, 32) or "measurement not known", said),
            "good" if guest.quote_signature_verified and not own else "bad",
        ),
        Box(
            f"{good} of {len(view.devices)} devices trusted",
            (f"tied by {guest.strength}" if bound else "NOT TIED TO THIS GUEST",),
            "good" if bound and good == len(view.devices) else "bad",
        ),
    )
    return Diagram((("Guest", boxes),))


def _golden_values(device: DeviceView, rim: RimView) -> Box:
    def passed(*parts: str) -> bool:
        return device.checks.passed(*(f"{rim.role}-rim-{part}" for part in parts))

    if not passed("signature", "binding"):
        state, style = "NOT ACCEPTED" if rim.sha256 else "NOT THERE", "bad"
    elif not passed("chain", "validity", "revocation"):
        # A good signature by a signer that is not to be believed must not look like the end of the matter.
        state, style = "signed, but not by a good chain", "warn"
    else:
        state, style = "signed, for this device", "good"
    return Box("Golden values", (rim.id, state), style)


def _compared(device: DeviceView) -> str:
    if device.measurements is None:
        return "not compared"
    covered, bad = len(device.covered), len(device.bad_cells)
    exempt = count_states(device)["exempt"]
    return f"{covered - bad - exempt} of {covered} golden values match" + (f", {exempt} exempt" if exempt else "")


def shorten(text: str, maximum: int = 40) -> str:
    """A name cut in the middle, where names differ least."""
    return text if len(text) <= maximum else f"{text[: maximum // 2]}…{text[-(maximum - maximum // 2 - 1) :]}"


def _certificates(chain: ChainView | None, debug: str = "") -> list[Box]:
    """The boxes of a chain, root first; ``debug`` is what the check of that name found."""
    if chain is None or not chain.certificates:
        return [Box("no chain", ("nothing could be read",), "bad")]
    found = []
    for position, certificate in reversed(list(enumerate(chain.certificates))):
        style, state = _state(chain, position, debug)
        validity = f"{certificate.not_before[:10]} – {certificate.not_after[:10]}"
        found.append(Box(shorten(certificate.name), (validity, state), style))
    return found


def _state(chain: ChainView, position: int, debug: str) -> tuple[str, str]:
    broken = next((finding.rule for finding in chain.findings if finding.position == position), None)
    if broken is not None:
        return "bad", broken.replace("-", " ").upper()
    # "certificate 0 (its name) says debug; certificate 2 …"
    said = next((part for part in debug.split("; ") if part.startswith(f"certificate {position} (")), "")
    if said:
        return "bad", f"says: {said.rpartition(' says ')[2].upper()}"
    answer = chain.certificates[position].revocation
    if answer is not None and answer.good:
        return "good", f"not revoked ({answer.source})"
    if answer is not None:
        return "bad", answer.status.upper() + (f": {answer.why}" if answer.why else "")
    if position == len(chain.certificates) - 1:
        pinned = chain.path_ok and chain.anchor
        return "good" if chain.path_ok else "bad", "pinned root" if pinned else "NOT a pinned root"
    if position == 0:
        return "plain" if chain.path_ok else "warn", "leaf: has no revocation service"
    return "warn", "revocation was not asked"


# --- the topology -----------------------------------------------------------------------------------------------------


class Node(NamedTuple):
    """One device of the picture. ``style`` is good, bad or ghost (named by others and not here)."""

    x: int
    y: int
    label: str
    note: str
    style: str


class Topology(NamedTuple):
    """The picture: GPUs above, switches below, and in words what is wrong.

    A link goes from one x above to another below. One that both ends name is good; one that a single end names, or to a
    device that is not here, is bad.
    """

    width: int
    nodes: tuple[Node, ...]
    links: tuple[tuple[int, int, str], ...]
    good: int
    problems: tuple[str, ...]


NODE_WIDTH: Final = 100
_SPACE: Final = 116
_LOWER: Final = 210
_MAXIMUM_NODES: Final = 16


def topology(view: AppraisalView) -> Topology | None:
    """The picture of who names whom, or None where there are not both GPUs and switches."""
    gpus = [device for device in view.devices if not device.is_switch]
    switches = [device for device in view.devices if device.is_switch]
    if not gpus or not switches or len(gpus) > _MAXIMUM_NODES or len(switches) > _MAXIMUM_NODES:
        return None
    present = {device.identity.pdi for device in view.devices if device.identity.pdi}
    lost_gpus, lost_switches = (
        sorted({pdi for device in row for pdi in device.report.neighbours if pdi not in present})[:4]
        for row in (switches, gpus)
    )
    rows = ((gpus, lost_gpus, 0), (switches, lost_switches, _LOWER))
    width = max(len(row) + len(lost) for row, lost, _ in rows) * _SPACE - (_SPACE - NODE_WIDTH)
    places: dict[str, int] = {}
    nodes = []
    for row, lost, y in rows:
        known = [
            (device.label, device.label, device.identity.pdi[-8:] or "no PDI", "good" if device.trusted else "bad")
            for device in row
        ]
        known += [(pdi, "not here", pdi[-8:], "ghost") for pdi in lost]
        share = width / len(known)
        for column, (key, *shown) in enumerate(known):
            x = round(share * column + (share - NODE_WIDTH) / 2)
            places[key] = x + NODE_WIDTH // 2
            nodes.append(Node(x, y, *shown))
    # Both ends, as (key of the GPU, key of the switch), and whether each names the other.
    pairs = {}
    for gpu in gpus:
        for switch in switches:
            there, back = gpu.names(switch), switch.names(gpu)
            if there or back:
                pairs[gpu.label, switch.label] = there and back
    pairs |= {(gpu.label, pdi): False for gpu in gpus for pdi in gpu.report.neighbours if pdi in lost_switches}
    pairs |= {(pdi, switch.label): False for switch in switches for pdi in switch.report.neighbours if pdi in lost_gpus}
    links = tuple(
        (places[upper], places[lower], "good" if good else "bad")
        for (upper, lower), good in sorted(pairs.items(), key=lambda pair: not pair[1])
    )
    return Topology(width, tuple(nodes), links, sum(pairs.values()), disagreements(view))


# --- the timelines ----------------------------------------------------------------------------------------------------


class Bar(NamedTuple):
    """One validity. ``x`` and ``width`` are in the field; ``beyond`` says that it begins before and ends after it."""

    x: float
    width: float
    label: str
    span: str
    style: str
    beyond: bool


class Timeline(NamedTuple):
    """Bars against a clock. ``ticks`` are (x, label), ``now`` is the place of the clock, ``first`` what ends first."""

    title: str
    bars: tuple[Bar, ...]
    ticks: tuple[tuple[float, str], ...]
    now: float
    clock: str
    first: str


_MAXIMUM_BARS: Final = 40
_EARLY: Final = datetime(1900, 1, 1, tzinfo=timezone.utc)
_FAR: Final = datetime(2200, 1, 1, tzinfo=timezone.utc)
LEFT: Final = 300
FIELD: Final = 560
_CLOSE: Final = 26
# One row per name and span, with the clocks that it was judged by: sixteen devices share all but two certificates.
Rows = dict[tuple[str, datetime, datetime], set[datetime]]


def timelines(view: AppraisalView) -> tuple[Timeline, ...]:
    """Certificates in years and revocation answers in hours, each once, against the clock that they were judged by."""
    clock = _instant(view.at.device)
    if clock is None:
        return ()
    rim_clock = _instant(view.at.rim) or clock
    certificates: Rows = {}
    answers: Rows = {}
    chains = [(device.chain, clock) for device in view.devices]
    chains += [(rim.chain, rim_clock) for device in view.devices for rim in device.rims]
    for chain, moment in chains:
        if chain is None:
            continue
        for certificate in chain.certificates:
            _note(certificates, certificate.name, certificate.not_before, certificate.not_after, moment)
            answer = certificate.revocation
            if answer is not None:
                _note(answers, certificate.name, answer.this_update, answer.next_update, moment)
    found = []
    if certificates:
        found.append(_timeline("Certificates", certificates, clock, timedelta(days=365 * 4), year=True))
    if answers:
        found.append(_timeline("Revocation answers", answers, clock, timedelta(hours=36), year=False))
    return tuple(found)


def _note(rows: Rows, name: str, begin: str, end: str, moment: datetime) -> None:
    first, last = _instant(begin), _instant(end)
    if first is not None and last is not None:
        rows.setdefault((name, first, last), set()).add(moment)


def _instant(text: str) -> datetime | None:
    try:
        return parse_time(text)
    except InputError:
        return None


def _timeline(title: str, rows: Rows, clock: datetime, half: timedelta, *, year: bool) -> Timeline:
    centre = min(max(clock, _EARLY), _FAR)
    start, stop = centre - half, centre + half

    def place(moment: datetime) -> float:
        return round(LEFT + (min(max(moment, start), stop) - start) / (stop - start) * FIELD, 1)

    def said(moment: datetime) -> str:
        return f"{moment.date()}" if year else f"{moment:%Y-%m-%d %H:%M} UTC"

    bars = []
    ordered = sorted(rows.items(), key=lambda item: (item[0][2], item[0][0]))[:_MAXIMUM_BARS]
    for (name, begin, end), moments in ordered:
        good = all(begin <= moment <= end for moment in moments)
        x = place(begin)
        bars.append(
            Bar(
                x=x, width=max(2.0, round(place(end) - x, 1)), label=shorten(name), span=f"{said(begin)} – {said(end)}",
                style="good" if good else "bad", beyond=begin < start and end > stop,
            )
        )  # fmt: skip
    # The label of the clock stands above; one of the axis right below it would be struck through by its line.
    ticks = [
        (place(moment), label if abs(place(moment) - place(clock)) > _CLOSE else "")
        for moment, label in _ticks(start, stop, year=year)
    ]
    first, _, ends = ordered[0][0]
    return Timeline(title, tuple(bars), tuple(ticks), place(clock), said(clock), f"{first}, {said(ends)}")


def _ticks(start: datetime, stop: datetime, *, year: bool) -> list[tuple[datetime, str]]:
    if year:
        years = range(start.year + 1, stop.year + 1)
        return [(datetime(number, 1, 1, tzinfo=timezone.utc), str(number)) for number in years]
    midnight = start.replace(hour=0, minute=0, second=0, microsecond=0)
    halves = (midnight + timedelta(hours=12) * count for count in range(9))
    inside = (moment for moment in halves if start <= moment <= stop)
    return [(moment, f"{moment:%m-%d}" if moment.hour == 0 else f"{moment:%H:%M}") for moment in inside]
