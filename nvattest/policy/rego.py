"""Rego policies as NVIDIA's examples are: package ``policy``, rule ``nv_match``, input = the array of claims.

The engine is ``regopy`` (rego-cpp), extra ``rego``. It runs in this process and in this thread: it holds the GIL while
it works, a policy that loops does not return, and one that is nested deeply can crash it. Untrusted policies are for
``nvattest.policy.isolation``, which runs this module in a child process with a deadline and bounded memory.

rego-cpp is not OPA: a name that is defined nowhere is undefined here, where OPA refuses the policy, so that ``not`` of
a misspelt name holds. Try a policy on claims that it has to refuse, too (``nvattest policy check --claims``). A
function that fails is an error, never a verdict.
"""

from __future__ import annotations

import json
import re
from typing import Final

from nvattest.errors import PolicyError

MAXIMUM: Final = 256 * 1024
MAXIMUM_INPUT: Final = 4 * 1024 * 1024
MAXIMUM_NESTING: Final = 100

_QUERY: Final = "answer := data.policy.nv_match"
# One pass from the front, so that a # inside a text begins no comment. A text that does not end matches as well: a
# pattern that fails there would be tried again from every quote in it.
_NO_CODE: Final = re.compile(r"#[^\n]*|\"(?:[^\"\\\n]|\\.)*(\"|)|`[^`]*(`|)")
_PACKAGE: Final = re.compile(r"\s*package[ \t]+([^\s;]+)")
# By its name, by a member in brackets (texts are not looked into), or by an import under another name.
_OUTSIDE: Final = re.compile(
    r"\b(?:http\s*\.\s*send|net\s*\.\s*lookup_ip_addr|opa\s*\.\s*runtime)\b"
    r"|(?<![.\w])(?:http|net|opa)\s*\[|\bimport\s+(?:http|net|opa)\b"
)


def checked(data: bytes, *, name: str) -> str:
    """The text of a policy of at most 256 KiB, its form checked; nothing is compiled, and no engine loaded.

    Raises:
        PolicyError: too large (code ``policy-size``), not UTF-8 or with NUL characters (``policy-encoding``), another
            package (``policy-package``), a text that does not end (``policy-text``), nested deeper than 100
            (``policy-nesting``), or a call that reaches for the network or the environment (``policy-outside``).
    """
    if len(data) > MAXIMUM:
        raise refuse(f"{name}: {len(data)} bytes, at most {MAXIMUM} are read", "policy-size")
    try:
        source = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise refuse(f"{name}, byte {error.start}: not UTF-8", "policy-encoding") from None
    if "\0" in source or source.startswith("\ufeff"):
        # The engine takes C strings: it would silently leave out the text after a NUL.
        raise refuse(f"{name}: NUL characters or a byte order mark", "policy-encoding", "save it as plain UTF-8")
    code = _code(source, name)
    package = _PACKAGE.match(code)
    if package is None or package[1] != "policy":
        found = "none" if package is None else repr(package[1][:80])
        raise refuse(
            f"{name}: the package is {found}, expected 'policy'", "policy-package", "begin it with: package policy"
        )
    outside = _OUTSIDE.search(code)
    if outside is not None:
        line = code.count("\n", 0, outside.start()) + 1
        raise refuse(
            f"{name}, line {line}: {' '.join(outside[0].split())} reaches outside of the claims",
            "policy-outside",
            "a policy decides on its input alone",
        )
    _check_nesting(code, name)
    return source


def _code(source: str, name: str) -> str:
    """The policy without its comments and texts; its lines stay, so that later ones keep their numbers."""

    def blank(match: re.Match[str]) -> str:
        if "" in match.groups():
            line = source.count("\n", 0, match.start()) + 1
            raise refuse(f"{name}, line {line}: a text begins here and does not end", "policy-text", "close it")
        return " " + "\n" * match.group().count("\n")

    return _NO_CODE.sub(blank, source)


def _without_comments(source: str) -> str:
    """The same lines without comments and carriage returns: rego-cpp refuses some places where OPA allows them."""
    bare = _NO_CODE.sub(lambda match: "" if match.group()[0] == "#" else match.group(), source)
    return bare.replace("\r\n", "\n")


def _check_nesting(code: str, name: str) -> None:
    depth = 0
    for match in re.finditer(r"[\[({\])}]", code):
        depth += 1 if match.group() in "[({" else -1
        if depth > MAXIMUM_NESTING:
            line = code.count("\n", 0, match.start()) + 1
            raise refuse(f"{name}, line {line}: nested more than {MAXIMUM_NESTING} deep", "policy-nesting")


def refusal(source: str, document: object, *, name: str) -> str | None:
    """Why a policy does not match this document, or None where it does.

    Raises:
        PolicyError: the policy does not compile, fails while it runs, or the input cannot be given to the engine.
    """
    text = _input(document)
    try:
        import regopy
    except ImportError:
        raise refuse(
            f"{name}: Rego policies need regopy, which is not installed",
            "policy-engine",
            "pip install regopy (the extra rego)",
        ) from None
    try:
        engine = regopy.Interpreter()
        engine.log_level = regopy.LogLevel.NONE
        # Otherwise "x := to_number(...)" holds in rego-cpp where the function fails, and so does "not" of it.
        engine.strict_built_in_errors = True
        engine.add_module(name, _without_comments(source))
        # set_input garbles texts with quotes and line ends.
        engine.set_input_term(text)
        output = engine.query(_QUERY)
        if not output.ok():
            raise refuse(
                f"{name}: the policy failed while it ran: a function met a value that it cannot take, or a rule "
                "has two values",
                "policy-run",
                "look whether each claim is there and of the right type before a function gets it",
            )
        results = output.results
    except regopy.RegoError as error:
        raise refuse(f"{name}: {_compiler_says(str(error))}", "policy-compile") from None
    except ValueError:
        # The engine answers with an empty text where a function is unknown or a rule needs itself.
        raise refuse(
            f"{name}: the policy cannot be compiled: an unknown function, or a rule that needs itself",
            "policy-compile",
        ) from None
    if len(results) != 1 or "answer" not in results[0].bindings:
        return f"{name}: nv_match is undefined: no such rule, or none of its conditions held"
    value = results[0].bindings["answer"]
    if value is True:
        return None
    said = "nv_match is false" if value is False else f"nv_match is not a boolean but {json.dumps(value)[:80]}"
    return f"{name}: {said}"


def _compiler_says(text: str) -> str:
    """The messages of rego-cpp's error tree."""
    messages = re.findall(r"\(errormsg \d+:([^()]*)\)", text)
    return "the policy cannot be compiled: " + ("; ".join(dict.fromkeys(messages)) or "no reason given")[:400]


def _input(document: object) -> str:
    try:
        _check_input(document)
        text = json.dumps(document, ensure_ascii=False, allow_nan=False)
        size = len(text.encode("utf-8"))
    except (TypeError, ValueError, RecursionError) as error:
        raise refuse(f"the claims cannot be given to a Rego policy: {error}", "policy-input") from None
    if size > MAXIMUM_INPUT:
        raise refuse(f"the claims have {size} bytes, at most {MAXIMUM_INPUT} are read", "policy-input")
    return text


def _check_input(value: object) -> None:
    """Refuse what the engine would silently change: texts end for it at a NUL, and integers wrap at 64 bits."""
    if isinstance(value, dict):
        for key, item in value.items():
            _check_input(key)
            _check_input(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_input(item)
    elif isinstance(value, str):
        if "\0" in value:
            raise ValueError("a text with a NUL character")
    elif isinstance(value, int) and not -(2**63) < value < 2**63:
        raise ValueError("an integer of more than 64 bits")


def refuse(message: str, code: str, hint: str = "") -> PolicyError:
    """The error for a policy that cannot be used, or that has no answer."""
    return PolicyError(message, code=code, hint=hint)
