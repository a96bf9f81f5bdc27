"""Untrusted Rego policies in a child process: a deadline, bounded memory, no environment, no output.

The engine cannot be interrupted in its own process: it holds the GIL, and deep recursion in it ends the process. So a
child evaluates the policy, and is killed when it takes too long or grows too large. A child that dies, for whatever
reason, is an error and never a verdict. JSON policies are data and are evaluated in this process.

The engine reserves hundreds of gigabytes of address space without using them, so that the usual resource limits cannot
bound it; the parent watches its resident memory instead.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Final

from nvattest.errors import PolicyError
from nvattest.policy.rego import refuse
from nvattest.policy.relying_party import PolicyDecision, PolicyInput, RegoPolicy, RelyingPartyPolicy, load_policy

DEFAULT_SECONDS: Final = 10.0
DEFAULT_MEMORY: Final = 512 * 1024 * 1024

_TICK: Final = 0.02
_MAXIMUM_ANSWER: Final = 256 * 1024
# Enough for Python to find its libraries; a policy reads nothing else of the caller's environment.
_KEPT: Final = ("LD_LIBRARY_PATH", "SYSTEMROOT")


def evaluate_bounded(
    policy: RelyingPartyPolicy,
    document: PolicyInput,
    overall: Mapping[str, object] | None = None,
    *,
    seconds: float = DEFAULT_SECONDS,
    memory: int = DEFAULT_MEMORY,
) -> PolicyDecision:
    """``policy.evaluate`` that always returns: after ``seconds`` at the latest, with ``memory`` bytes at most.

    On no claims it compiles a policy and decides nothing.

    Raises:
        PolicyError: as ``evaluate`` raises it, or because the child took too long (code ``policy-timeout``), grew too
            large (``policy-memory``) or died (``policy-crash``).
    """
    if not isinstance(policy, RegoPolicy):
        return policy.evaluate(document, overall)
    question = dict(document) if isinstance(document, Mapping) else list(document)
    return _ask(policy, question, seconds, memory)


def worker() -> None:
    """The child: read one question from standard input, answer it on standard output, and nothing else."""
    answer_to = os.dup(1)
    silence = os.open(os.devnull, os.O_WRONLY)
    # The engine prints compiler messages, and policies may print too; the answer has a channel of its own.
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    question = json.load(sys.stdin.buffer)
    _limit(question["seconds"])
    try:
        policy = load_policy(base64.b64decode(question["policy"]), name=question["name"])
        decision = policy.evaluate(question["input"])
        answer: dict[str, object] = {"matched": decision.matched, "reasons": decision.reasons}
    except PolicyError as error:
        answer = {"error": error.message, "code": error.code, "hint": error.hint}
    with os.fdopen(answer_to, "wb") as file:
        file.write(json.dumps(answer).encode())


def _limit(seconds: float) -> None:
    """Bounds that hold even if the parent dies: processor time, no files, no core dump, first to go without memory."""
    try:
        import resource
    except ImportError:
        # Windows: the parent's clock is the bound there.
        return
    whole = int(seconds) + 2
    for kind, value in ((resource.RLIMIT_CPU, whole), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)):
        try:
            resource.setrlimit(kind, (value, value))
        except (OSError, ValueError):
            # The limit is lower already.
            continue
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write("1000")
    except OSError:
        return


def _command() -> list[str]:
    if getattr(sys, "frozen", False):
        # A frozen program has no interpreter; its command line can be the child.
        return [os.path.join(os.path.dirname(sys.executable), "nvattest"), "policy", "worker"]
    paths = [os.path.abspath(path) for path in sys.path]
    code = f"import sys; sys.path[:] = {paths!r}; from nvattest.policy.isolation import worker; worker()"
    return [sys.executable, "-I", "-B", "-c", code]


def _ask(policy: RelyingPartyPolicy, document: object, seconds: float, memory: int) -> PolicyDecision:
    """The child's answer."""
    name = policy.name
    try:
        # The engine cannot hold more than JSON can. Lone surrogates survive as escapes.
        question = json.dumps(
            {"name": name, "policy": base64.b64encode(policy.data).decode(), "input": document, "seconds": seconds},
            allow_nan=False,
        ).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise refuse(f"the claims cannot be given to a Rego policy: {error}", "policy-input") from None
    environment = {key: os.environ[key] for key in _KEPT if key in os.environ}
    try:
        child = subprocess.Popen(
            _command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd="/",
        )
    except OSError as error:
        raise refuse(f"{name}: no process for the policy: {error.strerror or error}", "policy-process") from None
    try:
        output = _wait(child, question, seconds, memory, name)
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    # The child ended without reading all of it.
                    continue
    return _read(output, child.returncode, name)


def _wait(child: subprocess.Popen[bytes], question: bytes, seconds: float, memory: int, name: str) -> bytes:
    end = time.monotonic() + seconds
    to_send: bytes | None = question
    while True:
        try:
            return child.communicate(to_send, timeout=_TICK)[0]
        except subprocess.TimeoutExpired:
            to_send = None
        if _resident(child.pid) > memory:
            raise refuse(
                f"{name}: the policy needs more than {memory // 2**20} MiB of memory",
                "policy-memory",
                "a policy on claims needs next to none",
            )
        if time.monotonic() > end:
            raise refuse(
                f"{name}: the policy has no answer after {seconds:g} s", "policy-timeout", "look for loops over ranges"
            )


def _resident(pid: int) -> int:
    """The resident memory of the child in bytes; 0 where that cannot be seen."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def _read(output: bytes, status: int, name: str) -> PolicyDecision:
    try:
        answer = json.loads(output) if status == 0 and len(output) <= _MAXIMUM_ANSWER else None
    except (ValueError, RecursionError):
        answer = None
    match answer:
        case {"matched": bool() as matched, "reasons": [*reasons]}:
            return PolicyDecision(matched=matched, reasons=tuple(map(str, reasons)))
        case {"error": str() as message, "code": str() as code, "hint": str() as hint}:
            raise PolicyError(message, code=code, hint=hint)
    raise refuse(f"{name}: the policy engine ended without an answer (status {status})", "policy-crash")
