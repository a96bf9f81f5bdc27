"""Draw the rooms of the package and what imports what: examples/architecture.svg.

    python examples/docs/picture.py

The arrows are read from the imports; only the place of each room in the picture is written here. An arrow that follows
from two others is left out.
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "examples/architecture.svg"

# Box: its modules and folders, what it says below its name, its column and row.
BOXES: dict[str, tuple[tuple[str, ...], str, float, int]] = {
    "cli": (("cli", "__main__"), "commands", 2, 0),
    "compat": (("compat",), "NVIDIA's names", 2, 1),
    "fleet": (("fleet",), "many platforms", 0, 1),
    "report": (("report",), "text, page, words", 1, 1),
    "guest": (("guest",), "the hook", 4, 1),
    "testing": (("testing",), "simulated world", 3, 1),
    "session": (("session", "nvattest"), "wiring, public names", 1.2, 2),
    "collateral": (("collateral",), "services, cache, bundle", 0.5, 3),
    "devices": (("devices",), "driver, ready state", 4, 3),
    "tee": (("tee",), "the CPU's quote", 2.2, 3),
    "system": (("_system", "_waiting"), "folders, PCI, waiting", 2.6, 4),
    "token": (("token",), "EAT, EAR, keys", 0.5, 5),
    "policy": (("policy",), "demands", 1.7, 5),
    "appraisal": (("appraisal",), "checks and verdict", 2, 6),
    "evidence": (("evidence",), "of one device", 1, 7),
    "rim": (("rim",), "golden values", 3, 7),
    "pki": (("pki",), "chains, OCSP", 1, 8),
    "spdm": (("spdm",), "the report", 3, 8),
    "words": (
        ("errors", "model", "_documents", "_package", "_registry", "_text"),
        "errors, shared words, bounded readers: all rooms import them", 2, 9,
    ),
}  # fmt: skip
# Nothing below this row touches the world.
LAST_WITH_IO = 4
WIDTH, STEP, TOP = 920, 84, 34
COLUMN, BOX, HEIGHT = 176, 150, 46

STYLE = """
  text { font: 14px system-ui, sans-serif; fill: #1b1f24; text-anchor: middle }
  .small { font-size: 11px; fill: #57606a }
  .side { text-anchor: start }
  rect { fill: #f6f8fa; stroke: #57606a }
  .back { fill: #ffffff; stroke: none }
  .core { fill: #e9f5d8; stroke: #4c7a00 }
  path { fill: none; stroke: #8c959f }
  #head path { fill: #8c959f; stroke: none }
  .line { stroke: #4c7a00; stroke-dasharray: 6 5 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .small { fill: #9da7b1 }
    rect { fill: #21262d; stroke: #8b949e }
    .back { fill: #0d1117; stroke: none }
    .core { fill: #26331a; stroke: #9bd13b }
    path, .line { stroke: #6e7681 }
    #head path { fill: #6e7681 }
  }
"""


def boxes() -> dict[str, str]:
    """The box of each room."""
    return {room: box for box, (rooms, *_) in BOXES.items() for room in rooms}


def arrows() -> list[tuple[str, str]]:
    """Which box imports which, without what follows from two others.

    Raises:
        KeyError: a room has no box.
    """
    box_of = boxes()
    imports: dict[str, set[str]] = {box: set() for box in BOXES}
    for path in (ROOT / "nvattest").rglob("*.py"):
        parts = path.relative_to(ROOT / "nvattest").with_suffix("").parts
        box = box_of["nvattest" if parts == ("__init__",) else parts[0]]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{name}" for name in names]
            for name in names:
                package, _, rest = name.partition(".")
                room = rest.partition(".")[0]
                if package == "nvattest":
                    imports[box].add(box_of[room] if room in box_of else box_of["nvattest"])
    imports = {box: targets - {box, "words"} for box, targets in imports.items()}

    def reached(box: str) -> set[str]:
        return {further for target in imports[box] for further in (target, *reached(target))}

    return sorted(
        (box, target)
        for box, targets in imports.items()
        for target in targets
        if not any(target in reached(other) for other in targets - {target})
    )


def middle(box: str) -> tuple[float, float]:
    _, _, column, row = BOXES[box]
    return 110 + column * COLUMN, TOP + row * STEP


def svg() -> str:
    """The picture."""
    height = TOP + 9 * STEP + 40
    label = "The rooms of nvattest; arrows lead from a room to what it imports"
    head = 'id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}">',
        f"<style>{STYLE}</style>",
        '<rect class="back" width="100%" height="100%"/>',
        f'<defs><marker {head}><path d="M0 0 8 4 0 8z"/></marker></defs>',
    ]
    for box, target in arrows():
        (x, y), (to_x, to_y) = middle(box), middle(target)
        if y == to_y:
            side = BOX / 2 if to_x > x else -BOX / 2
            parts.append(f'<path d="M{x + side:g} {y:g}H{to_x - side:g}" marker-end="url(#head)"/>')
            continue
        y, to_y = y + HEIGHT / 2, to_y - HEIGHT / 2
        bend = min(60, (to_y - y) / 2)
        parts.append(
            f'<path d="M{x:g} {y:g}C{x:g} {y + bend:g} {to_x:g} {to_y - bend:g} {to_x:g} {to_y:g}" '
            'marker-end="url(#head)"/>'
        )
    line = TOP + (LAST_WITH_IO + 0.5) * STEP
    parts += [
        f'<path class="line" d="M10 {line:g}H{WIDTH - 10}"/>',
        f'<text class="small side" x="12" y="{line - 8:g}">drivers, network, files, clock</text>',
        f'<text class="small side" x="12" y="{line + 16:g}">bytes in, values out</text>',
    ]
    for box, (_, says, _, row) in BOXES.items():
        x, y = middle(box)
        wide = 3.2 * BOX if box == "words" else BOX
        core = ' class="core"' if row > LAST_WITH_IO else ""
        parts += [
            f'<rect{core} x="{x - wide / 2:g}" y="{y - HEIGHT / 2:g}" width="{wide:g}" height="{HEIGHT}" rx="6"/>',
            f'<text x="{x:g}" y="{y - 2:g}">{box}</text>',
            f'<text class="small" x="{x:g}" y="{y + 14:g}">{says}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(svg(), encoding="utf-8")
