"""Rego: three kinds of no, errors that are not a no, and nothing that hangs, crashes or reaches outside."""

from __future__ import annotations

import builtins
import socket
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from nvattest.errors import PolicyError, ResultCode
from nvattest.policy import isolation
from nvattest.policy.isolation import evaluate_bounded
from nvattest.policy.relying_party import PolicyDecision, PolicyLanguage, RelyingPartyPolicy, load_policy

pytest.importorskip("regopy")

HEAD = "package policy\n"
# Ranges nested deep enough for years.
LOOP = HEAD + (
    "nv_match { r := numbers.range(1, 3000); "
    "c := [1 | a := r[_]; b := r[_]; d := r[_]; e := r[_]; a + b + d + e > 100000]; count(c) == 0 }"
)


def rego(text: str) -> RelyingPartyPolicy:
    return load_policy(text.encode(), name="p.rego")


def decide(text: str, claims: object = ()) -> PolicyDecision:
    return rego(text).evaluate(list(claims))  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("rule", "matched", "reason"),
    [
        ("nv_match { true }", True, ""),
        ("nv_match = true", True, ""),
        ("nv_match { false }", False, "undefined"),
        ("nv_match { input[0].nothing }", False, "undefined"),
        ("other { true }", False, "undefined"),
        ("", False, "undefined"),
        ("default nv_match = false", False, "nv_match is false"),
        ('nv_match = "true"', False, 'not a boolean but "true"'),
        ("nv_match = 1", False, "not a boolean but 1"),
        ("nv_match = null", False, "not a boolean but null"),
        ("nv_match = [true]", False, "not a boolean but [true]"),
        ("nv_match[x] { x := true }", False, "not a boolean"),
    ],
)
def test_only_true_matches_and_each_no_has_its_reason(rule: str, matched: bool, reason: str) -> None:
    decision = decide(HEAD + rule)
    assert decision.matched is matched
    assert bool(decision.reasons) is not matched
    assert reason in "".join(decision.reasons)


def test_policies_of_rego_v0_and_v1_are_read() -> None:
    claims = [{"measres": "success"}, {"measres": "success"}]
    body = 'every c in input { c.measres == "success" }'
    assert decide(HEAD + "import future.keywords.every\nnv_match { " + body + " }", claims).matched
    assert decide(HEAD + "import rego.v1\nnv_match if { " + body + " }", claims).matched
    assert decide("# comment\n\npackage policy # more\r\nnv_match { count(input) == 2 }\r\n", claims).matched


@pytest.mark.parametrize(
    "rule",
    [
        "nv_match { tru",
        "nv_match { foo(1) }",
        "nv_match { nv_match }",
        "nv_match := ",
        "}",
    ],
)
def test_a_policy_that_does_not_compile_is_an_error_not_a_no(rule: str) -> None:
    with pytest.raises(PolicyError) as caught:
        decide(HEAD + rule)
    assert caught.value.code == "policy-compile"
    assert caught.value.result_code is ResultCode.POLICY_EVALUATION_ERROR


@pytest.mark.parametrize(
    "body",
    [
        "x := 1 / 0",
        'x := to_number("x")',
        'not to_number("x")',
        "x := count(input[0].measres)",
        "count(1) > 0",
        'x := {"a": 1 / 0}; x.a',
    ],
)
def test_a_function_that_fails_is_an_error_and_makes_nothing_true(body: str) -> None:
    with pytest.raises(PolicyError) as caught:
        decide(HEAD + f"nv_match {{ {body} }}", [{"measres": 1}])
    assert caught.value.code == "policy-run"


def test_a_policy_that_contradicts_itself_is_an_error() -> None:
    with pytest.raises(PolicyError) as caught:
        decide(HEAD + "nv_match = true { true }\nnv_match = false { true }")
    assert caught.value.code == "policy-run"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "policy-package"),
        (b"nv_match { true }", "policy-package"),
        (b"package other\nnv_match { true }", "policy-package"),
        (b"package policy.sub\nnv_match { true }", "policy-package"),
        (b"# package policy\nnv_match { true }", "policy-package"),
        (b"package policy\nnv_match { true }\0", "policy-encoding"),
        (b"\xef\xbb\xbfpackage policy\n", "policy-encoding"),
        (b"package policy\n# \xff", "policy-encoding"),
        (b"package policy\n" + b"#" * 300000, "policy-size"),
        (b"package policy\nnv_match { x := " + b"[" * 5000 + b"]" * 5000 + b" }", "policy-nesting"),
    ],
)
def test_a_text_that_is_no_policy_is_refused_before_the_engine_sees_it(data: bytes, code: str) -> None:
    with pytest.raises(PolicyError) as caught:
        load_policy(data, name="p.rego")
    assert caught.value.code == code


@pytest.mark.parametrize(
    "call",
    [
        'http.send({"method": "get", "url": "http://127.0.0.1:1/"})',
        "opa.runtime().env",
        'net.lookup_ip_addr("localhost")',
        'http . send({"method": "get"})',
        'opa["runtime"]()',
        'opa [ "runtime" ]()',
        'http["send"]({"method": "get"})',
        "http[`send`]({})",
        'net["lookup_ip_addr"]("localhost")',
        "opa # a comment\n.runtime()",
    ],
)
def test_a_policy_that_reaches_outside_is_refused_with_its_line(call: str) -> None:
    with pytest.raises(PolicyError, match="line 3") as caught:
        rego(HEAD + f"# a comment\nnv_match {{ not {call} }}")
    assert caught.value.code == "policy-outside"


@pytest.mark.parametrize("name", ["opa as o", "opa", "http.send as s", "http  as h", "# x\n net"])
def test_a_module_that_reaches_outside_is_not_imported(name: str) -> None:
    with pytest.raises(PolicyError) as caught:
        rego(HEAD + f"import {name}\nnv_match {{ o.runtime() }}")
    assert caught.value.code == "policy-outside"
    assert rego(HEAD + "import input.http\nnv_match { true }").evaluate([{}], None).matched


def test_a_claim_that_is_called_like_a_module_is_no_call() -> None:
    claims = [{"net": ["a"], "opa": {"runtime": True}, "http": {"send": 1}}]
    text = 'nv_match { input[0].net[0] == "a"; input[0].opa["runtime"]; input[0]["http"]["send"] == 1 }'
    assert rego(HEAD + text).evaluate(claims, None).matched


@pytest.mark.parametrize("text", ['x := "', 'x := "\\', "x := `", 'x := "a\ny" {', 'x := "\\"', '# "\nx := `"`"`'])
def test_a_text_that_does_not_end_is_refused_with_its_line(text: str) -> None:
    with pytest.raises(PolicyError, match=r"line [34]: a text begins here") as caught:
        load_policy((HEAD + "# one\n" + text).encode(), name="p.rego")
    assert caught.value.code == "policy-text"


def test_words_in_comments_and_texts_reach_nowhere() -> None:
    assert decide(HEAD + '# http.send\nnv_match { x := "opa.runtime # (((" ; x != `http.send [[[` }').matched


def test_the_engine_itself_has_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    import regopy

    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    port = listener.getsockname()[1]
    engine = regopy.Interpreter()
    engine.log_level = regopy.LogLevel.NONE
    engine.add_module("p", HEAD + f'nv_match {{ http.send({{"method": "get", "url": "http://127.0.0.1:{port}/"}}) }}')
    assert str(engine.query("x := data.policy.nv_match")) == "undefined"
    assert not engine.is_builtin("http.send")
    assert not engine.is_builtin("net.lookup_ip_addr")
    with pytest.raises(BlockingIOError):
        listener.accept()
    listener.close()


@pytest.mark.parametrize(
    ("rule", "claim"),
    [
        ('input[0].a == "x\\"y\\\\z\\n"', 'x"y\\z\n'),
        ('input[0].a == "é😀"', "é😀"),
        ("input[0].a == 9007199254740993", 9007199254740993),
        ("input[0].a == null", None),
        ('input[0].a == [1, {"b": false}]', [1, {"b": False}]),
    ],
)
def test_claims_reach_the_policy_as_they_are(rule: str, claim: object) -> None:
    assert decide(HEAD + f"nv_match {{ {rule} }}", [{"a": claim}]).matched


@pytest.mark.parametrize(
    ("rule", "claim"),
    [
        ('input[0].a == "success"', "success "),
        ("input[0].a == 1", True),
        ("input[0].a == 9007199254740993", 9007199254740992),
        ('input[0].a == "1"', 1),
    ],
)
def test_claims_that_are_only_similar_are_different(rule: str, claim: object) -> None:
    assert not decide(HEAD + f"nv_match {{ {rule} }}", [{"a": claim}]).matched


@pytest.mark.parametrize(
    "claim",
    ["success\0x", 2**63, -(2**63), float("nan"), float("inf"), "\ud800", {1, 2}, {"k\0": 1}, ["x" * 5_000_000]],
)
def test_claims_that_the_engine_would_change_are_refused(claim: object) -> None:
    with pytest.raises(PolicyError) as caught:
        decide(HEAD + "nv_match { true }", [{"a": claim}])
    assert caught.value.code == "policy-input"


def test_claims_nested_without_end_are_refused() -> None:
    claims: list[object] = []
    claims.append(claims)
    with pytest.raises(PolicyError, match="claims"):
        decide(HEAD + "nv_match { true }", claims)


def test_without_the_engine_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: object, **more: object) -> object:
        if name == "regopy":
            raise ImportError(name)
        return real(name, *rest, **more)  # type: ignore[arg-type]

    policy = rego(HEAD + "nv_match { true }")
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(PolicyError) as caught:
        policy.evaluate([{}])
    assert caught.value.code == "policy-engine"
    assert "pip install regopy" in caught.value.hint


def test_loading_a_policy_does_not_load_the_engine() -> None:
    code = (
        "import sys; from nvattest.policy.relying_party import load_policy;"
        "p = load_policy(b'package policy', name='p'); assert 'regopy' not in sys.modules; print(p.language.value)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "rego\n"


# --- in a child process -------------------------------------------------------------------------------------------


def test_the_child_decides_as_this_process_does() -> None:
    policy = rego(HEAD + 'nv_match { print("noise"); input[0].a == "é\\"\\n" }')
    assert evaluate_bounded(policy, [{"a": 'é"\n'}]) == PolicyDecision(matched=True)
    decision = evaluate_bounded(policy, [{"a": "b"}])
    assert not decision.matched
    assert "undefined" in decision.reasons[0]


def test_the_child_takes_an_ear_as_its_input() -> None:
    policy = rego(HEAD + 'nv_match { input["ear.status"] == "affirming" }')
    assert evaluate_bounded(policy, {"ear.status": "affirming"}).matched
    assert not evaluate_bounded(policy, {"ear.status": "warning"}).matched


@pytest.mark.parametrize(
    ("text", "code"), [(HEAD + "nv_match { tru", "policy-compile"), (HEAD + "nv_match { foo(1) }", "policy-compile")]
)
def test_the_childs_errors_arrive_as_errors(text: str, code: str) -> None:
    with pytest.raises(PolicyError) as caught:
        evaluate_bounded(rego(text), [])
    assert caught.value.code == code
    assert caught.value.result_code is ResultCode.POLICY_EVALUATION_ERROR


def test_a_policy_that_loops_is_stopped_at_its_deadline() -> None:
    began = time.monotonic()
    with pytest.raises(PolicyError) as caught:
        evaluate_bounded(rego(LOOP), [{}], seconds=0.6)
    assert caught.value.code in ("policy-timeout", "policy-memory")
    assert time.monotonic() - began < 10


def test_a_policy_that_eats_memory_is_stopped() -> None:
    with pytest.raises(PolicyError) as caught:
        evaluate_bounded(
            rego(HEAD + "nv_match { r := numbers.range(1, 200000000); count(r) == 0 }"),
            [{}],
            memory=120 * 2**20,
            seconds=60,
        )
    assert caught.value.code == "policy-memory"


def child_that(code: str) -> Callable[[], list[str]]:
    return lambda: [sys.executable, "-I", "-c", code]


@pytest.mark.parametrize(
    "code",
    [
        "import os; os.abort()",
        "import sys; sys.exit(3)",
        "pass",
        "print('[]')",
        'print(\'{"matched": 1, "reasons": []}\')',
        "print('{\"matched\": true}')",
        'import sys; print(\'{"matched": true, "reasons": []}\'); sys.exit(1)',
        "print('{' * 100000)",
        "print(' ' * 300000 + '{\"matched\": true, \"reasons\": []}')",
    ],
)
def test_a_child_that_dies_or_babbles_is_never_a_verdict(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "_command", child_that(code))
    with pytest.raises(PolicyError) as caught:
        evaluate_bounded(rego(HEAD + "nv_match { true }"), [{}])
    assert caught.value.code == "policy-crash"


def test_a_child_that_cannot_be_started_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "_command", lambda: ["/nowhere/python"])
    with pytest.raises(PolicyError) as caught:
        evaluate_bounded(rego(HEAD + "nv_match { true }"), [{}])
    assert caught.value.code == "policy-process"


def test_claims_that_json_cannot_hold_are_refused_before_a_child_is_started() -> None:
    with pytest.raises(PolicyError) as caught:
        evaluate_bounded(rego(HEAD + "nv_match { true }"), [{"a": float("nan")}])
    assert caught.value.code == "policy-input"


def test_json_policies_need_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "_command", lambda: ["/nowhere/python"])
    text = b'{"version":"4.0","authorization-rules":{"type":"JWT","overall-claims":{"a":1},"detached-claims":{"b":2}}}'
    policy = load_policy(text, name="p.json")
    assert policy.language is PolicyLanguage.NVIDIA_JSON
    evaluate_bounded(policy, [])
    assert evaluate_bounded(policy, [{"b": 2}], {"a": 1}).matched
