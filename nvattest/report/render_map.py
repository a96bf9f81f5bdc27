"""The measurement map: 64 cells in rows of eight, and each value that differs in full."""

from __future__ import annotations

from typing import Final

from nvattest.report.model import CellView, DeviceView
from nvattest.report.terminal import Terminal

COLUMNS: Final = 8
CELLS: Final = 64

STATES: Final = {
    # state: (sign, plain sign, colour, words)
    "matched": ("●", "+", "good", "matched"),
    "mismatched": ("✗", "X", "bad", "MISMATCH"),
    "missing": ("?", "?", "bad", "missing in the report"),
    "exempt": ("○", "o", "warn", "exempt"),
    "not-covered": ("·", ".", "dim", "not covered by a RIM"),
}
_UNKNOWN: Final = ("?", "?", "warn", "unknown")
SOURCES: Final = {"driver": ("D", "driver RIM"), "vbios": ("V", "VBIOS RIM"), "bios": ("B", "switch BIOS RIM")}


def grid(cells: tuple[CellView, ...]) -> tuple[CellView | None, ...]:
    """All places of the map: at least 64, a whole number of rows, None where nothing was measured or expected."""
    by_index = {cell.index: cell for cell in cells}
    size = max([CELLS, *(index + 1 for index in by_index)])
    size += -size % COLUMNS
    return tuple(by_index.get(index) for index in range(size))


def measurement_map(device: DeviceView, terminal: Terminal) -> list[str]:
    """The map, its legend, and the cells that differ, as lines."""
    title = terminal.paint("  Measurements", "bold")
    if device.cells is None:
        return [title + ": not compared, because there is no verified RIM to compare with"]
    counts = {state: sum(cell.state == state for cell in device.cells) for state in STATES}
    lines = [title, terminal.paint("      " + "".join(f"   +{column} " for column in range(COLUMNS)).rstrip(), "dim")]
    places = grid(device.cells)
    for start in range(0, len(places), COLUMNS):
        row = "".join(_cell(cell, terminal) for cell in places[start : start + COLUMNS])
        lines.append(terminal.paint(f"  {start:>4}", "dim") + row)
    legend = []
    for state, (sign, plain, style, words) in STATES.items():
        if counts[state]:
            legend.append(f"{terminal.paint(terminal.sign(sign, plain), style)} {counts[state]} {words}")
    sources = [SOURCES[s] for s in SOURCES if any(cell.source == s for cell in device.cells)]
    lines.append("      " + "   ".join(legend))
    lines.append(
        terminal.paint(
            "      " + ", ".join(f"{letter} {words}" for letter, words in sources) + "; a digit counts alternatives",
            "dim",
        )
    )
    for cell in device.bad_cells[:16]:
        lines += _difference(cell, device, terminal)
    return lines


def _cell(cell: CellView | None, terminal: Terminal) -> str:
    if cell is None:
        return "      "
    sign, plain, style, _ = STATES.get(cell.state, _UNKNOWN)
    letter = SOURCES.get(cell.source, ("",))[0]
    alternatives = str(len(cell.golden)) if len(cell.golden) > 1 else ""
    body = terminal.sign(sign, plain) + letter + alternatives[:2]
    return "   " + terminal.paint(body, style) + " " * max(0, 3 - len(body))


def _difference(cell: CellView, device: DeviceView, terminal: Terminal) -> list[str]:
    rim = device.rim(cell.source)
    source = SOURCES.get(cell.source, ("?", cell.source or "no RIM"))[1]
    lines = [
        "",
        terminal.paint(f"      index {cell.index}", "bad", "bold") + f" (SPDM block {cell.index + 1}), {source}",
    ]
    if rim is not None:
        lines.append(f"        in      {rim.id}")
    for number, golden in enumerate(cell.golden, 1):
        name = "golden" if len(cell.golden) == 1 else f"golden {number}"
        lines += _hex(name, golden, terminal)
    lines += _hex("found", cell.runtime, terminal) if cell.runtime else ["        found   no such block in the report"]
    return lines


def _hex(name: str, value: str, terminal: Terminal) -> list[str]:
    lead = f"        {name:<8}"
    room = max(16, (terminal.width - len(lead)) // 16 * 16)
    parts = [value[start : start + room] for start in range(0, len(value), room)][:8] or [""]
    return [lead + parts[0], *(" " * len(lead) + part for part in parts[1:])]
