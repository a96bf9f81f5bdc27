"""Tokens, claims, bundles and errors as text."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Final

from nvattest._text import clean
from nvattest.model import format_time
from nvattest.report.catalogue import entry_lines, find_entry
from nvattest.report.detect import Subject, Token, compact
from nvattest.report.terminal import Terminal
from nvattest.report.values import JsonObject, flag, item, number, text

_TIMES: Final = ("iat", "nbf", "exp")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MAXIMUM_CLAIMS: Final = 200


def render_subject(subject: Subject, terminal: Terminal, *, source: str) -> str:
    """A token, claims, a bundle or an error as text; appraisals have their own renderer.

    Raises:
        ParseError: the bundle is none after all.
    """
    if subject.kind == "token":
        return terminal.finish(_tokens(subject.tokens, terminal))
    if subject.kind == "claims":
        return terminal.finish(_claims_file(subject, terminal))
    if subject.kind == "bundle":
        return terminal.finish(_bundle(subject.data, source, terminal))
    if subject.kind == "result":
        banner = _banner("This is what a program said of its result.", terminal)
        return terminal.finish([*banner, *_result(subject.result or {}, terminal)])
    return terminal.finish(_error(subject.error or {}, terminal))


def _banner(what: str, terminal: Terminal) -> list[str]:
    sign = terminal.sign("▲", "!")
    lines = terminal.wrap(f"NOT VERIFIED. {what} Anybody can write these words.", first=f"{sign} ", rest="  ")
    return [terminal.paint(line, "warn", "bold") for line in lines]


def _tokens(tokens: tuple[Token, ...], terminal: Terminal) -> list[str]:
    count = "One token" if len(tokens) == 1 else f"{len(tokens)} tokens"
    lines = [
        *_banner("This is what the token says; nobody checked its signature, times or nonce here.", terminal),
        "  Check it with nvattest verify-token.",
        "",
        f"{count}:",
    ]
    for token in tokens:
        lines += ["", *_token(token, terminal)]
    return lines


def _token(token: Token, terminal: Terminal) -> list[str]:
    name = clean(token.name) or "overall token"
    lines = [terminal.paint(name, "bold"), terminal.rule()]
    if token.fault:
        return [*lines, *(terminal.paint(line, "bad") for line in terminal.wrap(clean(token.fault), first="  "))]
    algorithm, issuer = text(token.header, "alg", "none"), text(token.claims, "iss", "not named")
    lines += terminal.wrap(
        f"signed with {algorithm}, key {text(token.header, 'kid', 'not named')}, by {issuer}", first="  "
    )
    if algorithm.lower() == "none":
        lines += [terminal.paint("  It has no signature at all: it is evidence of nothing.", "bad")]
    elif algorithm.upper().startswith("HS"):
        warning = (
            "The key is a shared secret, so that whoever checks it could have written it: NVIDIA's old Python SDK "
            "signs so. It is no evidence to anybody else."
        )
        lines += [terminal.paint(line, "bad") for line in terminal.wrap(warning, first="  ")]
    times = [f"{key} {_instant(token.claims, key)}" for key in _TIMES if number(token.claims, key) is not None]
    lines += terminal.wrap(", ".join(times) or "no times: neither issued, valid from nor expiring", first="  ")
    if number(token.claims, "exp") is None:
        lines += [terminal.paint("  It never expires: a verifier must refuse it.", "bad")]
    submods = item(token.claims, "submods")
    rest = {key: value for key, value in token.claims.items() if key not in (*_TIMES, "iss", "submods")}
    lines += ["", *_claims(rest, terminal)]
    for key, value in list(submods.items())[:64]:
        lines += ["", terminal.paint(f"  submodule {clean(str(key), 80)}", "bold")]
        lines += (
            _claims(value, terminal) if isinstance(value, dict) else terminal.wrap(clean(compact(value)), first="    ")
        )
    return lines


def _instant(claims: JsonObject, key: str) -> str:
    seconds = number(claims, key)
    if seconds is None:
        return "?"
    try:
        return format_time(_EPOCH + timedelta(seconds=seconds))
    except OverflowError:
        return f"out of range ({seconds})"


def _claims(claims: JsonObject, terminal: Terminal) -> list[str]:
    lines = []
    shown = list(claims.items())[:_MAXIMUM_CLAIMS]
    for key, value in sorted(shown):
        name = clean(str(key), 100)
        if isinstance(value, dict) and value:
            lines.append(f"    {name}")
            for inner, deep in list(value.items())[:32]:
                lines += _claim(clean(str(inner), 100), deep, terminal, indent=6)
        else:
            lines += _claim(name, value, terminal, indent=4)
    if len(claims) > len(shown):
        lines.append(f"    and {len(claims) - len(shown)} more claims")
    return lines


def _claim(name: str, value: object, terminal: Terminal, *, indent: int) -> list[str]:
    said = clean(compact(value), 600)
    style: tuple[str, ...] = ()
    if value is False or said in ("fail", "contraindicated", "revoked", "expired", "invalid"):
        style = ("bad",)
    elif value is None or said in ("warning", "undefined", "unknown"):
        style = ("warn",)
    lines = terminal.wrap(f"{name}  {said}", first=" " * indent, rest=" " * (indent + 4))
    return [terminal.paint(line, *style) for line in lines]


def _claims_file(subject: Subject, terminal: Terminal) -> list[str]:
    lines = _banner("These are claims without a token around them.", terminal)
    if subject.result is not None:
        lines += _result(subject.result, terminal)
    for name, claims in subject.claims:
        lines += ["", terminal.paint(f"  {clean(name)}", "bold"), *_claims(claims, terminal)]
    return lines


def _result(result: JsonObject, terminal: Terminal) -> list[str]:
    """What ``verify-token``, a batch, a service or another command said, and first of all that it was simulated."""
    code = number(result, "result_code")
    message = text(result, "result_message")
    lines = ["", *terminal.wrap(f"result code {code}{': ' * bool(message)}{message}", first="  ")]
    if any(flag(part, "simulated") for part in (result, item(result, "token"), item(result, "verified_by"))):
        lines.append(terminal.paint("  *** SIMULATED: this proves nothing ***", "warn", "bold"))
    rest = {name: value for name, value in result.items() if name not in ("result_code", "result_message")}
    return [*lines, *_claims(rest, terminal)]


def _bundle(data: bytes, source: str, terminal: Terminal) -> list[str]:
    from nvattest.appraisal.verifier import Verifier
    from nvattest.collateral.bundle import load_bundle
    from nvattest.collateral.inspection import inspect_bundle, render_inspection
    from nvattest.session import now

    collateral = load_bundle(data, origin=source)
    lines = [terminal.paint("bundle", "bold") + "  RIMs and revocation answers in one file", terminal.rule()]
    for line in render_inspection(inspect_bundle(collateral, Verifier(), now()).facts).split("\n"):
        indent = " " * (len(line) - len(line.lstrip()) + 2)
        lines += terminal.wrap(clean(line.strip()), first=indent, rest=indent + "    ")
    note = (
        "It is verified here under NVIDIA's roots as of now. Each use verifies every signature again, so that a bundle "
        "needs no trust of its own; it must only be complete and fresh."
    )
    return [*lines, "", *(terminal.paint(line, "dim") for line in terminal.wrap(note))]


def _error(document: JsonObject, terminal: Terminal) -> list[str]:
    code, problem = number(document, "result_code"), item(document, "error")
    lines = [
        terminal.paint("Nothing was judged", "bad", "bold"),
        *terminal.wrap(f"result code {code}: {text(document, 'result_message', '?')}", first="  "),
    ]
    if text(problem, "message"):
        lines += terminal.wrap(text(problem, "message"), first="  ")
    if text(problem, "hint"):
        lines += terminal.wrap(text(problem, "hint"), first="  next: ")
    word = text(problem, "code")
    entry = (find_entry(word) if word else None) or find_entry(str(code))
    return [*lines, *(["", *entry_lines(entry, terminal)] if entry is not None else [])]
