"""The manifest of an extension image: the agent's rules, each mistake with its consequence, and our entry in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from nvattest.errors import InputError, NvattestError
from nvattest.guest.check import manifest_findings
from nvattest.guest.extension import (
    VARIABLES,
    Launch,
    add_process,
    launch_plan,
    our_entry,
    read_manifest,
)

GOOD = """\
# A manifest as CoCo's: the entries of [[process]] are started in their order.
schema_version = 1

[paths]
"ocicrypt-config" = "etc/ocicrypt_config.json"

# [[process]] stands in a comment too.
[[process]]
id = "attestation-agent"
level = 1
args = ["--sock", "${aa_attestation_uri}"]
optional_args = [{ when = "initdata_toml_path", args = ["--initdata", "${initdata_toml_path}"] }]
config = "${aa_config_path}"
wait_socket = "${aa_attestation_socket}"
timeout_secs = "${launch_process_timeout}"
select = "${attester_variant}"

  [process.variants.default]
  path = "usr/local/bin/attestation-agent"

  [process.variants.nvidia]
  path = "/usr/local/bin/attestation-agent-nv"
  args = ["--nv"]
  env = { A = "variant", B = "${extension_root}/b" }

[[process]]
id = "api-server-rest"
level = 3
path = "usr/local/bin/api-server-rest"
env = { A = "base" }
"""
VALUES = dict.fromkeys(VARIABLES, "") | {
    "aa_attestation_uri": "unix:///run/aa.sock",
    "aa_attestation_socket": "/run/aa.sock",
    "launch_process_timeout": "6",
    "extension_root": "/run/kata-extensions/coco",
    "attester_variant": "nvidia",
}
ROOT = "/run/kata-extensions/coco"


def plan(text: str, *, most: int = 3, **values: str) -> tuple[Launch, ...]:
    return launch_plan(read_manifest(text.encode()), VALUES | values, most=most, root=ROOT)


def test_processes_are_started_in_the_order_of_the_file_with_their_variables_filled_in() -> None:
    agent, server = plan(GOOD)
    assert agent == Launch(
        id="attestation-agent", path=f"{ROOT}/usr/local/bin/attestation-agent-nv",
        args=("--sock", "unix:///run/aa.sock", "--nv"), config=None, env={"A": "variant", "B": f"{ROOT}/b"},
        wait_socket="/run/aa.sock", timeout_secs=6,
    )  # fmt: skip
    assert (server.path, server.env, server.wait_socket) == (
        f"{ROOT}/usr/local/bin/api-server-rest",
        {"A": "base"},
        None,
    )
    assert plan(GOOD, attester_variant="")[0].path.endswith("/attestation-agent")
    assert plan(GOOD, initdata_toml_path="/i")[0].args[2:4] == ("--initdata", "/i")


def test_only_levels_from_one_to_the_most_are_started() -> None:
    assert [item.id for item in plan(GOOD, most=1)] == ["attestation-agent"]
    assert plan(GOOD, most=0) == ()
    assert [item.id for item in plan(GOOD.replace("level = 1\n", ""))] == ["api-server-rest"]


FATAL = {
    "no schema_version": ("schema_version = 1\n", "", "schema_version"),
    "another schema_version": ("schema_version = 1", "schema_version = 2", "schema_version"),
    "a text as schema_version": ("schema_version = 1", 'schema_version = "1"', "schema_version"),
    "a truth as schema_version": ("schema_version = 1", "schema_version = true", "schema_version"),
    "schema_version twice": ("schema_version = 1", "schema_version = 1\nschema_version = 1", ""),
    "no TOML": ("[paths]", "[paths", ""),
    "a number as timeout": ('timeout_secs = "${launch_process_timeout}"', "timeout_secs = 120", "timeout_secs"),
    "a word as timeout": ("${launch_process_timeout}", "soon", "timeout_secs"),
    "a text as level": ("level = 1", 'level = "1"', "level"),
    "a negative level": ("level = 1", "level = -1", "level"),
    "a text as args": ('args = ["--nv"]', 'args = "--nv"', "args"),
    "a number in env": ('env = { A = "base" }', "env = { A = 1 }", "env"),
    "an unknown variable": ("${aa_config_path}", "${aa_confg_path}", "aa_confg_path"),
    "an open variable": ("${aa_config_path}", "${aa_config_path", "aa_config_path"),
    "an unknown variant": ("[process.variants.nvidia]", "[process.variants.amd]", "variant 'nvidia'"),
    "neither path nor variant": ('path = "usr/local/bin/api-server-rest"\n', "", "neither a path"),
    "a path that leaves the image": ("usr/local/bin/api-server-rest", "usr/../../bin/sh", "no path below"),
    "an empty path": ('"usr/local/bin/api-server-rest"', '" "', "no path below"),
    "no ocicrypt-config": ('"ocicrypt-config"', '"other"', "ocicrypt-config"),
    "no id": ('id = "api-server-rest"\n', "", "id"),
    "optional_args without when": ("when = ", "wen = ", "without when"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(FATAL))
def test_what_ends_the_agent_is_refused(name: str) -> None:
    old, new, words = FATAL[name]
    text = GOOD.replace(old, new, 1)
    assert text != GOOD
    with pytest.raises(NvattestError) as refused:
        plan(text)
    assert words in refused.value.message
    [finding] = manifest_findings(text.encode())
    assert finding.severity == "error"


def severities(text: str, **options: object) -> list[tuple[str, str]]:
    return [(item.severity, item.message) for item in manifest_findings(text.encode(), **options)]  # type: ignore[arg-type]


def test_what_the_agent_passes_over_is_said() -> None:
    [(severity, message), _] = severities(GOOD.replace("level = 3", "level = 3\nlevle = 1"))
    assert (severity, "passes over levle" in message) == ("warning", True)
    # What a variant or an addition has beside its own keys is passed over like that.
    assert [item[0] for item in severities(GOOD.replace('args = ["--nv"]', 'args = ["--nv"]\nother = 1'))] == ["ok"]
    [(severity, message), _] = severities(GOOD.replace("level = 3", "level = 0"))
    assert (severity, "never started" in message) == ("warning", True)
    # Of ours it is an error.
    found = severities(add_process(GOOD, our_entry(gate=False)).replace("level = 1", "level = 0", 1))
    assert found[0][0] == "error"


@pytest.mark.parametrize("gate", [False, True])
def test_our_entry_goes_in_front_of_the_attestation_agent_and_changes_nothing_else(gate: bool) -> None:
    merged = add_process(GOOD, our_entry(gate=gate))
    ours, *others = plan(merged)
    assert tuple(others) == plan(GOOD)
    assert ours.path == f"{ROOT}/usr/share/oci/hooks/prestart/nvattest-hook"
    assert ours.args == ("--stage", "watch", "--config", f"{ROOT}/etc/nvattest/hook.toml")
    assert (ours.wait_socket, ours.timeout_secs) == (("/run/nvattest/token.json", 120) if gate else (None, 0))
    assert merged.replace(our_entry(gate=gate) + "\n", "") == GOOD
    assert [item[0] for item in severities(merged)] == ["ok"]
    with pytest.raises(InputError, match="already"):
        add_process(merged, our_entry(gate=gate))


def test_an_entry_that_cannot_be_placed_is_refused() -> None:
    with pytest.raises(InputError, match="no process 'attestation-agent'"):
        add_process(GOOD.replace('id = "attestation-agent"', 'id = "other"'), our_entry(gate=False))
    inline = (
        'schema_version = 1\nprocess = [{ id = "attestation-agent", path = "x" }]\n[paths]\n"ocicrypt-config" = "x"\n'
    )
    with pytest.raises(InputError, match=r"not written as a table"):
        add_process(inline, our_entry(gate=False))


def test_a_gate_that_would_never_open_is_found_in_the_mounted_image(tmp_path: Path) -> None:
    merged = add_process(GOOD, our_entry(gate=True))
    for path in ("usr/share/oci/hooks/prestart/nvattest-hook", "usr/local/bin/attestation-agent-nv"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch(mode=0o755)
    root = str(tmp_path)
    [(severity, message), *_] = severities(merged, root=root)
    assert (severity, "api-server-rest is not there" in message) == ("error", True)
    (tmp_path / "usr/local/bin/api-server-rest").touch(mode=0o755)
    [(severity, message)] = severities(merged, root=root)
    assert (severity, "no bundle" in message) == ("error", True)
    (tmp_path / "etc/nvattest").mkdir(parents=True)
    (tmp_path / "etc/nvattest/bundle.json").touch()
    assert [item[0] for item in severities(merged, root=root)] == ["ok"]
    other = merged.replace("/run/nvattest/token.json", "/run/nvattest/state.json")
    assert severities(other, root=root)[0][0] == "error"
    late = GOOD + "\n" + our_entry(gate=True)
    assert ("warning", "attestation-agent, api-server-rest is started before the gate") in severities(late, root=root)
    for stage in ('"--stage", "hook"', '"--stage", "x"'):
        assert severities(merged.replace('"--stage", "watch"', stage), root=root)[0][0] == "error"
