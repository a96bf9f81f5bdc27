"""Small seeded faults in the code that decides: does a test notice? ``make mutants`` runs a sample.

    mutants.py [--seed N] [--count N] [--only WORD] [--jobs N] [--minutes M]

A mutant is one file with one expression or statement changed. The sample is drawn from all of them with a seed, files
by the square root of their size, so that a run can be repeated and the next one looks elsewhere. Each mutant meets
tests in a copy of the project: first those closest to its module, then, where it survived them, the wider ones of its
room. Tests that fail without a change end the run.
A mutant that survives is printed with its place and its change, and the exit status is 1, unless ``equivalent.py``
names it: a change that no test can notice, with the reason.

What is not changed: texts for people (messages, hints, f-strings), type annotations and imports.
"""

from __future__ import annotations

import argparse
import ast
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from equivalent import EQUIVALENT

ROOT = Path(__file__).resolve().parents[2]


class Room(NamedTuple):
    """The modules of a room that decide, each with the tests closest to it, and the wider tests of the room."""

    modules: dict[str, str]
    wide: str


ROOMS = {
    "appraisal": Room(
        {
            "appraisal/check.py": "unit/appraisal/test_verdict.py",
            "appraisal/identity.py": "unit/appraisal/test_policy.py unit/appraisal/test_verdict.py",
            "appraisal/inputs.py": "unit/appraisal/test_policy.py",
            "appraisal/measurements.py": "unit/appraisal/test_measurements.py unit/appraisal/test_policy.py",
            "appraisal/memory.py": "unit/appraisal/test_memory.py",
            "appraisal/results.py": "unit/appraisal/test_verdict.py unit/appraisal/test_platform.py",
            "appraisal/revocation.py": "unit/appraisal/test_revocation.py",
            "appraisal/verifier.py": "unit/appraisal/test_verdict.py unit/appraisal/test_platform.py "
            "unit/appraisal/test_memory.py unit/appraisal/test_rim_memory.py",
        },
        "unit/appraisal attack/test_cross_binding.py vectors/test_real_vectors.py unit/testing/test_seen.py "
        "unit/token/test_nvidia_claims.py unit/cli/test_attest_files.py",
    ),
    "pki": Room(
        {
            "pki/anchors.py": "unit/pki/test_anchors.py unit/tee/test_guest.py",
            "pki/certificate.py": "unit/pki/test_certificate.py",
            "pki/chain.py": "unit/pki/test_chain.py",
            "pki/dice.py": "unit/pki/test_dice.py",
            "pki/ecdsa.py": "unit/pki/test_ecdsa.py",
            "pki/ocsp.py": "unit/pki/test_ocsp.py",
        },
        "unit/pki unit/appraisal vectors/test_real_vectors.py attack/test_second_opinion.py "
        "property/test_certificates.py unit/testing/test_seen.py",
    ),
    "rim": Room(
        {
            "rim/document.py": "unit/rim/test_attacks.py",
            "rim/ids.py": "unit/rim/test_ids_and_binding.py",
            "rim/verify.py": "unit/rim/test_attacks.py unit/rim/test_ids_and_binding.py",
            "rim/xml.py": "unit/rim/test_attacks.py",
        },
        "unit/rim unit/appraisal vectors/test_real_vectors.py attack/test_cross_binding.py property/test_rim.py "
        "unit/testing/test_seen.py unit/collateral/test_folders.py",
    ),
    "spdm": Room(
        {
            "spdm/opaque.py": "unit/spdm/test_opaque.py unit/spdm/test_fields.py",
            "spdm/report.py": "unit/spdm/test_report.py unit/spdm/test_request.py unit/spdm/test_measurements.py",
            "_documents.py": "unit/test_documents.py",
        },
        "unit/spdm unit/appraisal vectors/test_real_vectors.py property/test_spdm.py unit/testing/test_seen.py",
    ),
    "token": Room(
        dict.fromkeys(
            (
                *("token/binding.py", "token/claims.py", "token/ear.py", "token/jose.py"),
                *("token/verified.py", "token/verify.py"),
            ),
            "attack/test_token_attacks.py unit/token/test_nvidia_issuers.py",
        ),
        "unit/token unit/cli/test_verify_token.py unit/cli/test_binding.py unit/tee vectors/test_real_tokens.py "
        "integration/test_verify_token_nras.py",
    ),
    "tee": Room(
        {
            "appraisal/guest.py": "unit/policy/test_cpu_policy.py unit/tee/test_guest.py",
            "tee/collateral.py": "unit/tee/test_collateral.py unit/tee/test_issued.py unit/tee/test_guest.py",
            "tee/guest.py": "unit/tee/test_guest.py",
            "tee/quote.py": "unit/tee/test_quote.py unit/tee/test_guest.py",
            "tee/recipes.py": "unit/tee/test_recipes.py",
            "tee/snp.py": "unit/tee/test_guest.py",
            "tee/tdx.py": "unit/tee/test_guest.py",
        },
        "unit/tee unit/cli/test_guest_options.py vectors/test_real_quotes.py unit/policy/test_cpu_policy.py",
    ),
    "model": Room(
        {
            "model.py": "unit/test_model.py",
            "evidence.py": "unit/test_evidence.py",
            "_documents.py": "unit/test_documents.py",
            "_text.py": "unit/test_text.py",
        },
        "unit/appraisal vectors unit/cli/test_attest_files.py",
    ),
}
# Seconds after which a run of the tests counts as killed: a mutant that goes round for ever.
LIMIT = 600
SAMPLE = 60

COMPARE = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==",
    ast.Is: "is not", ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in",
}  # fmt: skip
ARITHMETIC = {ast.Add: "-", ast.Sub: "+", ast.Mult: "+", ast.BitAnd: "|", ast.BitOr: "&", ast.LShift: ">>", ast.RShift: "<<"}  # fmt: skip
QUANTIFIERS = {"any": "all", "all": "any", "min": "max", "max": "min"}
# Arguments that are words for people, decide about such, or guard against faults of our own.
WORDS = {"hint", "detail", "message", "title", "source", "label", "repr", "strict"}


class Mutant(NamedTuple):
    """One change: of ``was`` at these bytes of a module into ``text``."""

    room: str
    module: str
    function: str
    operator: str
    line: int
    begin: int
    end: int
    was: str
    text: str

    @property
    def name(self) -> tuple[str, str, str, str]:
        """What ``equivalent.py`` knows it by, whatever else in the file changes."""
        return self.module, self.function, " ".join(self.was.split()), " ".join(self.text.split())

    def __str__(self) -> str:
        was, text = " ".join(self.was.split()), " ".join(self.text.split())
        return f"{self.module}:{self.line} {self.function} [{self.operator}]\n    - {was[:200]}\n    + {text[:200]}"


class Changes(ast.NodeVisitor):
    """Collects (operator, node, text, function) for one module."""

    def __init__(self) -> None:
        self.found: list[tuple[str, ast.AST, str, str]] = []
        self._inside: list[str] = []

    def _put(self, operator: str, node: ast.AST, text: str) -> None:
        self.found.append((operator, node, text, ".".join(self._inside)))

    def _expression(self, operator: str, node: ast.expr, text: str) -> None:
        self._put(operator, node, f"({text})")

    # Words for people, types, imports.
    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        pass

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        value = node.value
        alias = isinstance(value, ast.Subscript) and ast.unparse(value.value) in (
            "Callable",
            "Mapping",
            "dict",
            "tuple",
        )
        if ast.unparse(node.targets[0]) != "__all__" and not alias:
            self.visit(value)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._inside.append(node.name)
        for part in node.body:
            self.visit(part)
        self._inside.pop()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._inside.append(node.name)
        for part in (*node.args.defaults, *node.args.kw_defaults, *node.body):
            if part is not None:
                self.visit(part)
        self._inside.pop()

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) != "TYPE_CHECKING":
            self._expression("never", node.test, "False")
            self._expression("always", node.test, "True")
            self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._expression(
            "other-branch",
            node,
            f"{ast.unparse(node.orelse)} if {ast.unparse(node.test)} else {ast.unparse(node.body)}",
        )
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        for position, operator in enumerate(node.ops):
            other = COMPARE[type(operator)]
            sides = [node.left, *node.comparators]
            signs = [other if n == position else _sign(op) for n, op in enumerate(node.ops)]
            text = ast.unparse(sides[0])
            for sign, side in zip(signs, sides[1:], strict=True):
                text += f" {sign} {ast.unparse(side)}"
            self._expression("compare", node, text)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        word, other = (" and ", " or ") if isinstance(node.op, ast.And) else (" or ", " and ")
        parts = [f"({ast.unparse(value)})" for value in node.values]
        self._expression("and-or", node, other.join(parts))
        for place in range(len(parts)):
            self._expression("drop-operand", node, word.join(parts[:place] + parts[place + 1 :]))
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            self._expression("drop-not", node, ast.unparse(node.operand))
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        sign = ARITHMETIC.get(type(node.op))
        if sign is not None and not any(isinstance(side, ast.JoinedStr) for side in (node.left, node.right)):
            self._expression("arithmetic", node, f"({ast.unparse(node.left)}) {sign} ({ast.unparse(node.right)})")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self._expression("constant", node, str(not node.value))
        elif isinstance(node.value, int):
            self._expression("constant", node, str(node.value + 1))

    def visit_Tuple(self, node: ast.Tuple) -> None:
        self._elements(node, node.elts)

    def visit_List(self, node: ast.List) -> None:
        self._elements(node, node.elts)

    def _elements(self, node: ast.Tuple | ast.List, elements: list[ast.expr]) -> None:
        if isinstance(node.ctx, ast.Load) and len(elements) > 1:
            for place in range(len(elements)):
                rest = [ast.unparse(item) for n, item in enumerate(elements) if n != place]
                body = ", ".join(rest)
                text = f"[{body}]" if isinstance(node, ast.List) else f"({body},)"
                self._put("drop-element", node, text)
        self.generic_visit(node)

    def visit_Return(self, node: ast.Return) -> None:
        value = node.value
        if value is not None and not isinstance(value, ast.Constant):
            for text in ("None", "True", "False") if isinstance(value, ast.Compare | ast.BoolOp) else ("None",):
                self._put("return", value, text)
            self.visit(value)

    def visit_Raise(self, node: ast.Raise) -> None:
        self._put("no-raise", node, "pass")
        # What it says is for people; what it says to programs is among the arguments.
        if isinstance(node.exc, ast.Call):
            for argument in node.exc.keywords:
                if argument.arg not in WORDS:
                    self.visit(argument.value)

    def visit_Continue(self, node: ast.Continue) -> None:
        self._put("continue", node, "break")

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call):
            self._put("no-call", node, "pass")
            self.visit(node.value)

    def visit_For(self, node: ast.For) -> None:
        for cut in ("[1:]", "[:-1]"):
            self._put("skip", node.iter, f"list({ast.unparse(node.iter)}){cut}")
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        self._put("skip", node.iter, f"list({ast.unparse(node.iter)})[1:]")
        for test in node.ifs:
            self._expression("always", test, "True")
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name) and node.func.id in QUANTIFIERS:
            self._put("quantifier", node.func, QUANTIFIERS[node.func.id])
        self.visit(node.func)
        for argument in node.args:
            self.visit(argument)
        for keyword in node.keywords:
            if keyword.arg not in WORDS:
                self.visit(keyword.value)


def _sign(operator: ast.cmpop) -> str:
    for kind, sign in (
        (ast.Lt, "<"), (ast.LtE, "<="), (ast.Gt, ">"), (ast.GtE, ">="), (ast.Eq, "=="), (ast.NotEq, "!="),
        (ast.Is, "is"), (ast.IsNot, "is not"), (ast.In, "in"), (ast.NotIn, "not in"),
    ):  # fmt: skip
        if isinstance(operator, kind):
            return sign
    raise AssertionError(operator)


def mutants_of(room: str, module: str) -> Iterator[Mutant]:
    """Every mutant of a module that compiles and is another program."""
    source = (ROOT / "nvattest" / module).read_bytes()
    tree = ast.parse(source)
    same = ast.dump(tree)
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    changes = Changes()
    changes.visit(tree)
    for operator, node, text, function in changes.found:
        begin = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        mutant = Mutant(room, module, function, operator, node.lineno, begin, end, source[begin:end].decode(), text)
        try:
            if ast.dump(ast.parse(changed(source, mutant))) != same:
                yield mutant
        except SyntaxError:
            continue


def changed(source: bytes, mutant: Mutant) -> bytes:
    """The module with the change in it."""
    return source[: mutant.begin] + mutant.text.encode() + source[mutant.end :]


def sample(seed: int, count: int, only: str) -> tuple[list[Mutant], int]:
    """``count`` mutants of the modules whose path or room contains ``only``, and how many there are."""
    rng = random.Random(seed)  # noqa: S311 - a sample that can be drawn again
    pools = []
    for name, room in ROOMS.items():
        for module in room.modules:
            if only in f"{name} {module}":
                pool = sorted(mutants_of(name, module), key=lambda mutant: (mutant.begin, mutant.end, mutant.text))
                rng.shuffle(pool)
                pools.append(pool)
    weights = [math.sqrt(len(pool)) for pool in pools]
    chosen = []
    for pool, weight in zip(pools, weights, strict=True):
        chosen += pool[: max(1, round(count * weight / sum(weights)))]
    rng.shuffle(chosen)
    return chosen[:count], sum(len(pool) for pool in pools)


class Copy:
    """A copy of the project to change, with the shared data beside it where this checkout has it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "project"
        skip = shutil.ignore_patterns(".venv", ".git", "__pycache__", ".*_cache", "build", "dist", ".hypothesis")
        shutil.copytree(ROOT, self.path, ignore=skip)
        if (ROOT.parent / "shared").is_dir():
            (folder / "shared").symlink_to(ROOT.parent / "shared")
        self._sound: dict[str, bool] = {}

    def survives(self, mutant: Mutant) -> bool:
        """Whether no test of its room notices the mutant."""
        room = ROOMS[mutant.room]
        close = room.modules[mutant.module]
        self.require_sound(close)
        if self._killed(mutant, close):
            return False
        self.require_sound(room.wide)
        return not self._killed(mutant, room.wide)

    def require_sound(self, tests: str) -> None:
        """Raise unless these tests pass without any change: else they would kill everything."""
        if tests not in self._sound:
            self._sound[tests] = self._pass(tests)
        if not self._sound[tests]:
            raise SystemExit(f"mend these first, they fail without any change: {tests}")

    def _killed(self, mutant: Mutant, tests: str) -> bool:
        path = self.path / "nvattest" / mutant.module
        original = path.read_bytes()
        path.write_bytes(changed(original, mutant))
        try:
            return not self._pass(tests)
        finally:
            path.write_bytes(original)

    def _pass(self, tests: str) -> bool:
        """Whether these tests pass in the copy, and end."""
        environment = {**os.environ, "PYTHONPATH": str(self.path), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
        process = subprocess.Popen(
            [*command, *(f"tests/{name}" for name in tests.split())],
            cwd=self.path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        try:
            return process.wait(LIMIT) == 0
        except subprocess.TimeoutExpired:
            return False
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def work(copy: Copy, mutants: list[Mutant], until: float) -> list[tuple[Mutant, bool]]:
    """Judge mutants one after another in a copy of their own."""
    judged = []
    for mutant in mutants:
        if time.monotonic() > until:
            break
        survived = copy.survives(mutant)
        judged.append((mutant, survived))
        print("SURVIVED" if survived else "killed  ", mutant if survived else str(mutant).split("\n")[0], flush=True)
    return judged


def main() -> int:
    """Run a sample; 0 if every mutant was killed or is known to be equivalent."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=SAMPLE)
    parser.add_argument("--only", default="", help="modules whose room or path contains this")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=24 * 60)
    options = parser.parse_args()
    chosen, total = sample(options.seed, options.count, options.only)
    equivalent = [mutant for mutant in chosen if mutant.name in EQUIVALENT]
    rest = [mutant for mutant in chosen if mutant.name not in EQUIVALENT]
    print(
        f"{len(chosen)} of {total} mutants, seed {options.seed}; {len(equivalent)} of them are known to be equivalent"
    )
    until = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory(prefix="nvattest-mutants-") as folder, ThreadPoolExecutor(options.jobs) as pool:
        copies = []
        for number in range(options.jobs):
            (Path(folder) / str(number)).mkdir()
            copies.append(Copy(Path(folder) / str(number)))
        parts = pool.map(lambda n: work(copies[n], rest[n :: options.jobs], until), range(options.jobs))
        judged = [item for part in parts for item in part]
    survivors = [mutant for mutant, survived in judged if survived]
    print(f"\n{len(judged)} run, {len(judged) - len(survivors)} killed, {len(survivors)} survived")
    for mutant in survivors:
        print(mutant)
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
