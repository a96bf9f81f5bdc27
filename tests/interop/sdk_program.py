"""A program for NVIDIA's Python SDK, run with theirs and with our front; only the import differs.

sdk_program.py {theirs,ours} {LOCAL,REMOTE} {GPU,SWITCH} CLAIMS_VERSION POLICY...
"""

from __future__ import annotations

import base64
import importlib
import json
import sys
import warnings
from pathlib import Path

warnings.simplefilter("ignore")
front, mode, device, version, *policies = sys.argv[1:]
package = "nv_attestation_sdk" if front == "theirs" else "nvattest.compat.nv_attestation_sdk"
attestation = importlib.import_module(f"{package}.attestation")

client = attestation.Attestation("peer")
client.set_name("peer")
client.set_nonce("ab" * 32)
client.set_claims_version(version)
client.add_verifier(getattr(attestation.Devices, device), getattr(attestation.Environment, mode), "", "")
evidence = client.get_evidence(options={"ppcie_mode": False})
verdict = client.attest(evidence)
token = client.get_token()
matched = [client.validate_token(Path(path).read_text(encoding="utf-8")) for path in policies]


def payload(text: str) -> object:
    return json.loads(base64.urlsafe_b64decode(text.split(".")[1] + "=="))


parts = list(json.loads(token)[1].values()) if token else []
said = [[payload(part[0][1]), [payload(item) for item in part[1].values()]] for part in parts if part]
print("RESULT", json.dumps({"verdict": verdict, "count": len(evidence), "matched": matched, "said": said}))
