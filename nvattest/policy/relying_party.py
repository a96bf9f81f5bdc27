"""A relying party's policy, in whichever language it is written."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from nvattest._documents import JsonObject
from nvattest.policy.decision import PolicyDecision, PolicyInput
from nvattest.policy.json_policy import JsonPolicy, load_json_policy
from nvattest.policy.rego import RegoPolicy, load_rego

MAXIMUM: Final = 256 * 1024

# A Rego file begins, after comments, with its package; no TOML key is followed by a bare word.
_REGO: Final = re.compile(rb"(?:\s|#[^\n]*(?:\n|$))*package\s")


class PolicyLanguage(Enum):
    """NVIDIA_JSON: the Python SDK's policies. REGO: those of NVIDIA's C++ tools and of OPA."""

    NVIDIA_JSON = "nvidia-json"
    REGO = "rego"


@dataclass(frozen=True, slots=True, kw_only=True)
class RelyingPartyPolicy:
    """A relying party's policy. ``data`` is its file, byte for byte; ``sha256`` names it in tokens."""

    name: str
    data: bytes
    body: JsonPolicy | RegoPolicy

    @property
    def language(self) -> PolicyLanguage:
        return PolicyLanguage.REGO if isinstance(self.body, RegoPolicy) else PolicyLanguage.NVIDIA_JSON

    @property
    def sha256(self) -> str:
        """Hexadecimal digest of the file."""
        return hashlib.sha256(self.data).hexdigest()

    def check(self) -> None:
        """Compile it. Rego runs in this process: see ``nvattest.policy.isolation`` for untrusted policies.

        Raises:
            PolicyError: it cannot be compiled.
        """
        self.body.check()

    def evaluate(self, document: PolicyInput, overall: Mapping[str, object] | None = None) -> PolicyDecision:
        """Decide on the claims of all devices, or on an EAR. Rego runs in this process, see ``check``.

        Args:
            document: one object per device, as ``nvattest.claims_of`` makes them or a verified token holds them; or
                the payload of an EAR, for Rego only.
            overall: the claims of the overall token; only JSON policies have rules for them.

        Raises:
            PolicyError: the policy cannot be compiled or fails while it runs, or knows no EAR. Never a verdict.
        """
        return self.body.evaluate(document, overall)

    def explain(self) -> tuple[str, ...]:
        """What it demands, line by line."""
        return self.body.explain()

    def provenance(self, decision: PolicyDecision, *, overrides: bool) -> JsonObject:
        """What the token says of this policy (``relying_party`` of ``nvattest.token``)."""
        return {
            "name": self.name,
            "language": self.language.value,
            "sha256": self.sha256,
            "matched": decision.matched,
            "overrides_appraisal": overrides,
        }


def load_policy(data: bytes, *, name: str) -> RelyingPartyPolicy:
    """Read a policy; a text that begins with ``{`` is JSON, any other is Rego.

    Args:
        data: the file, at most 256 KiB of UTF-8.
        name: what errors and tokens call it, such as its file name.

    Raises:
        ParseError: JSON that is not well formed.
        PolicyError: a policy that cannot be used; code and place say why. Whether Rego compiles, ``check`` says.
    """
    load = load_json_policy if data.lstrip()[:1] == b"{" else load_rego
    body: JsonPolicy | RegoPolicy = load(data, name=name)
    return RelyingPartyPolicy(name=name, data=data, body=body)


def is_relying_party_policy(data: bytes, *, name: str) -> bool:
    """Whether a file is a relying party's policy, rather than an evidence policy; its name decides where it can.

    JSON is NVIDIA's if it holds ``authorization-rules`` anywhere.
    """
    if data.lstrip()[:1] == b"{":
        return b"authorization-rules" in data
    return name.endswith(".rego") or _REGO.match(data) is not None
