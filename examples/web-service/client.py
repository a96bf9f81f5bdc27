"""The guest's side of service.py: get a nonce, attest over it, send the token, print the answer.

    python client.py URL -- --device all --signing-key key.pem

What follows ``--`` goes to ``nvattest attest``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path


def post(url: str, document: object) -> tuple[int, dict[str, object]]:
    request = urllib.request.Request(url, data=json.dumps(document).encode("ascii"), method="POST")  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, json.load(refused)


def main(url: str, options: list[str]) -> int:
    _, given = post(f"{url}/nonce", None)
    nonce = str(given["nonce"])
    with tempfile.TemporaryDirectory() as folder:
        token = Path(folder, "token.json")
        attest = ["nvattest", "attest", "--nonce", nonce, "--token-out", str(token), *options]
        # Its status says whether the devices are trusted here; the service decides for itself.
        subprocess.run(attest, check=False, stdout=subprocess.DEVNULL)
        status, answer = post(f"{url}/token", {"nonce": nonce, "token": json.loads(token.read_text(encoding="utf-8"))})
    print(status, json.dumps(answer))
    return 0 if status == 200 else 1


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[2] != "--":
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], sys.argv[3:]))
