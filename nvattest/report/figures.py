"""The figures of one device, its chains and its measurements, as numbers and words; the template draws them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from nvattest.report.model import CertificateView, ChainView, DeviceView
from nvattest.report.render_map import CELLS, COLUMNS, SOURCES, grid

# -- the trust-chain diagram ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """One box of a diagram. ``style`` is good, bad, warn or plain; ``lines`` are the small texts under the title."""

    x: int
    y: int
    width: int
    height: int
    title: str
    lines: tuple[str, ...]
    style: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrow:
    """A line with a head from one point to another."""

    x1: int
    y1: int
    x2: int
    y2: int
    style: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagram:
    """Boxes and arrows in a field; ``columns`` are (x, heading)."""

    width: int
    height: int
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]
    columns: tuple[tuple[int, str], ...]


_BOX_WIDTH: Final = 300
_BOX_HEIGHT: Final = 64
_GAP: Final = 26
_TOP: Final = 30


def trust_diagram(device: DeviceView) -> Diagram:
    """Device root to report on the left, RIM root to golden values beside it, and the comparison below both."""
    chains: list[tuple[str, ChainView | None, Box]] = []
    report_ok = _passed(device, "report-signature", "report-format")
    versions = " ".join(part for part in (device.driver_version, device.firmware_version) if part)
    said = "signed by the leaf key" if report_ok else "SIGNATURE NOT GOOD"
    end = _box("Report", (versions or "signed measurements", said),
               "good" if report_ok else "bad")  # fmt: skip
    chains.append(("Device", device.chain, end))
    for rim in device.rims:
        signed = _passed(device, f"{rim.role}-rim-signature", f"{rim.role}-rim-binding")
        word = {"driver": "Driver RIM", "vbios": "VBIOS RIM", "bios": "BIOS RIM"}.get(rim.role, "RIM")
        state = "signed, for this device" if signed else "NOT THERE" if not rim.sha256 else "NOT ACCEPTED"
        style = "good" if signed else "bad"
        if signed and not _passed(device, *(f"{rim.role}-rim-{part}" for part in ("chain", "validity", "revocation"))):
            # A good signature by a signer that is not to be believed must not look like the end of the matter.
            state, style = "signed, but not by a good chain", "warn"
        chains.append((word, rim.chain, _box("Golden values", (rim.id, state), style)))
    debug = next((check.found for check in device.checks if check.id == "debug" and check.outcome == "fail"), "")
    boxes: list[Box] = []
    arrows: list[Arrow] = []
    deepest = max([len(chain.certificates) if chain else 1 for _, chain, _ in chains])
    bottom = _TOP + deepest * (_BOX_HEIGHT + _GAP)
    centres = []
    for column, (_, chain, last) in enumerate(chains):
        x = column * (_BOX_WIDTH + _GAP)
        centre = x + _BOX_WIDTH // 2
        centres.append((centre, last.style))
        y = _TOP
        previous: int | None = None
        for box in _certificates(chain, debug=debug if chain is device.chain else ""):
            if previous is not None:
                arrows.append(Arrow(x1=centre, y1=previous, x2=centre, y2=y, style=box.style))
            boxes.append(_placed(box, x, y))
            previous = y + _BOX_HEIGHT
            y += _BOX_HEIGHT + _GAP
        if previous is not None:
            arrows.append(Arrow(x1=centre, y1=previous, x2=centre, y2=bottom, style=last.style))
        boxes.append(_placed(last, x, bottom))
    total = len(chains) * (_BOX_WIDTH + _GAP) - _GAP
    matched = _passed(device, "measurements")
    covered = [cell for cell in device.cells or () if cell.state != "not-covered"]
    bad, exempt = len(device.bad_cells), sum(cell.state == "exempt" for cell in covered)
    words = (
        "not compared"
        if device.cells is None
        else f"{len(covered) - bad - exempt} of {len(covered)} golden values match"
    )
    words += f", {exempt} exempt" if exempt else ""
    compare_y = bottom + _BOX_HEIGHT + 2 * _GAP
    boxes.append(
        Box(
            x=0,
            y=compare_y,
            width=total,
            height=48,
            title="Measurements",
            lines=(words,),
            style="bad" if not matched else "good" if all(style == "good" for _, style in centres) else "warn",
        )
    )
    arrows += [
        Arrow(x1=centre, y1=bottom + _BOX_HEIGHT, x2=centre, y2=compare_y, style=style if matched else "bad")
        for centre, style in centres
    ]
    return Diagram(
        width=total, height=compare_y + 50, boxes=tuple(boxes), arrows=tuple(arrows),
        columns=tuple((index * (_BOX_WIDTH + _GAP), word) for index, (word, _, _) in enumerate(chains)),
    )  # fmt: skip


def _passed(device: DeviceView, *ids: str) -> bool:
    outcome = {check.id: check.outcome for check in device.checks}
    return all(outcome.get(name) == "pass" for name in ids)


def _box(title: str, lines: tuple[str, ...], style: str) -> Box:
    return Box(x=0, y=0, width=_BOX_WIDTH, height=_BOX_HEIGHT, title=shorten(title), lines=lines, style=style)


def _placed(box: Box, x: int, y: int) -> Box:
    return Box(x=x, y=y, width=box.width, height=box.height, title=box.title, lines=box.lines, style=box.style)


def shorten(text: str, maximum: int = 40) -> str:
    """A name cut in the middle, where names differ least."""
    return text if len(text) <= maximum else f"{text[: maximum // 2]}…{text[-(maximum - maximum // 2 - 1) :]}"


def _certificates(chain: ChainView | None, *, debug: str = "") -> list[Box]:
    if chain is None or not chain.certificates:
        return [_box("no chain", ("nothing could be read",), "bad")]
    found = []
    broken = {position for position, _, _ in chain.findings}
    last = len(chain.certificates) - 1
    for position in range(last, -1, -1):
        certificate = chain.certificates[position]
        lines = [_validity(certificate)]
        style = "plain"
        answer = certificate.revocation
        # "certificate 0 (its name) says debug; certificate 2 …"
        said = next((part for part in debug.split("; ") if part.startswith(f"certificate {position} (")), "")
        if position in broken:
            style = "bad"
            lines.append(next(rule for at, rule, _ in chain.findings if at == position).replace("-", " ").upper())
        elif said:
            style = "bad"
            lines.append(f"says: {said.rpartition(' says ')[2].upper()}")
        elif answer is not None:
            style = "good" if answer.good else "bad"
            reason = f": {answer.reason}" if answer.reason and answer.reason != answer.status else ""
            lines.append(f"not revoked ({answer.source})" if answer.good else f"{answer.status.upper()}{reason}")
        elif position == last:
            style = "good" if chain.path_ok else "bad"
            lines.append("pinned root" if chain.path_ok and chain.anchor else "NOT a pinned root")
        elif position == 0:
            style = "plain" if chain.path_ok else "warn"
            lines.append("leaf: has no revocation service")
        else:
            lines.append("revocation was not asked")
            style = "warn"
        found.append(_box(certificate.name, tuple(lines[:2]), style))
    return found


def _validity(certificate: CertificateView) -> str:
    return f"{certificate.not_before[:10]} – {certificate.not_after[:10]}"


# -- the measurement grid ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Square:
    """One place of the grid."""

    index: int
    x: int
    y: int
    state: str
    letter: str
    alternatives: int
    title: str


_SIDE: Final = 40
_STEP: Final = 44


def measurement_squares(device: DeviceView) -> tuple[Square, ...]:
    """The squares of the grid, row by row; none where nothing was compared."""
    if device.cells is None:
        return ()
    found = []
    for index, cell in enumerate(grid(device.cells)):
        state = "empty" if cell is None else cell.state
        letter, source = SOURCES.get(cell.source if cell is not None else "", ("", "no RIM"))
        count = len(cell.golden) if cell is not None else 0
        words = f"index {index}: {state}" + (f", {source}, {count} golden" if count else "")
        found.append(
            Square(
                index=index, x=index % COLUMNS * _STEP, y=index // COLUMNS * _STEP, state=state, letter=letter,
                alternatives=count, title=words,
            )
        )  # fmt: skip
    return tuple(found)


def grid_height(squares: Sequence[Square]) -> int:
    """The height of the grid."""
    return max([CELLS // COLUMNS * _STEP, *(square.y + _STEP for square in squares)]) - (_STEP - _SIDE)
