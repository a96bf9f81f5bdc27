"""The hook's configuration: the schema, the reader and the documented example say the same."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from nvattest._package import schema_bytes
from nvattest.errors import InputError
from nvattest.guest.arguments import Stage
from nvattest.guest.config import KEYS, HookConfig, Paths, Settings, load_settings, own_configuration, parse_config

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

EXAMPLE = Path(__file__).resolve().parents[3] / "examples/kata/hook.toml"
SCHEMA: dict[str, Any] = json.loads(schema_bytes("hook-config-1.json"))


def schema_accepts(document: object) -> bool:
    return jsonschema.Draft202012Validator(SCHEMA).is_valid(document)


def test_no_file_and_an_empty_file_mean_the_defaults() -> None:
    assert parse_config(b"") == HookConfig()


def test_schema_reader_and_defaults_know_the_same_keys() -> None:
    described = {"": {name for name, item in SCHEMA["properties"].items() if item.get("type") != "object"}}
    described |= {
        name: set(item["properties"]) for name, item in SCHEMA["properties"].items() if item.get("type") == "object"
    }
    assert described == {name: set(keys) for name, keys in KEYS.items()}
    names = {f"{table}_{key}" if table else key for table, keys in KEYS.items() for key in keys}
    assert names == set(HookConfig._fields)


def test_the_defaults_of_the_schema_are_those_of_the_program() -> None:
    config = HookConfig()
    written = {"collateral_rim_url", "collateral_ocsp_url", "token_issuer"}  # None means "what the client uses"
    for table, keys in KEYS.items():
        properties = SCHEMA["properties"][table]["properties"] if table else SCHEMA["properties"]
        for key in keys:
            name = f"{table}_{key}" if table else key
            if name not in written:
                assert properties[key].get("default") == getattr(config, name), name


def test_the_example_documents_every_key_with_its_default() -> None:
    text = EXAMPLE.read_text()
    assert parse_config(text.encode()) == HookConfig()
    # Every key stands there commented out; with the comment signs gone it is a configuration too.
    opened = re.sub(r"(?m)^#(?=\[?[a-z_]+(?:\]| = ))", "", text)
    document = tomllib.loads(opened)
    assert schema_accepts(document)
    parse_config(opened.encode())
    assert {name for name, value in document.items() if isinstance(value, dict)} == set(filter(None, KEYS))
    for table, keys in KEYS.items():
        found = document[table] if table else {k: v for k, v in document.items() if not isinstance(v, dict)}
        assert set(found) == set(keys)


GOOD = [
    "expected_gpus = 8\nexpected_switches = 4",
    "[budget]\nhook = 8.5\ninit = 1800.0",
    "[collateral]\nrim_url = 'http://127.0.0.1:1'",
    "allow_no_gpu = true\nexpected_gpus = 0",
    "[log]\nkeep = 0\nmax_bytes = 4096",
]
BAD = [
    "unknown = 1",
    "expected_gpus = -1",
    "expected_gpus = true",
    "expected_gpus = 1.0e0x",
    "on_failure = 'ignore'",
    "policy = 'relative.toml'",
    "[budget]\nhook = 9",
    "[budget]\nhook = 9.5",
    "[budget]\nhook = nan",
    "[budget]\nhook = true",
    "[unknown]\n",
    "[log.deeper]\nx = 1",
    "budget = 8",
    "[token]\nclaims_version = '9'",
    "[token]\nissuer = ''",
    "[token]\nissuer = 'two words'",
    f"[token]\nissuer = '{'x' * 257}'",
    "[driver]\npersistence = true",
    "[collateral]\nrim_url = 'ftp://x'",
    "[collateral]\nocsp_url = 'https://user:secret@host'",
    "[collateral]\nrim_url = 'https://host/?key=secret'",
    "[[log]]\nkeep = 1",
    "\xff",
]


@pytest.mark.parametrize("text", GOOD)
def test_what_the_schema_accepts_the_reader_accepts(text: str) -> None:
    assert schema_accepts(tomllib.loads(text))
    parse_config(text.encode())


@pytest.mark.parametrize("text", BAD)
def test_what_is_wrong_is_refused_with_the_place(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_config(text.encode("latin-1"))
    assert caught.value.code == "hook-config"
    assert str(caught.value).startswith("/etc/nvattest/hook.toml")
    assert caught.value.hint
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("text", ["clock.not_before = 'soon'", "allow_no_gpu = true\nexpected_gpus = 1"])
def test_what_a_schema_cannot_say_is_refused_too(text: str) -> None:
    with pytest.raises(InputError):
        parse_config(text.encode())


def test_a_huge_file_is_refused() -> None:
    with pytest.raises(InputError):
        parse_config(b"#" * 300_000)


def test_paths_of_the_configuration_lie_below_the_root() -> None:
    settings = Settings(paths=Paths("/tmp/x/"), config=HookConfig(policy="/etc/p.toml", driver_nvml="/lib/n.so"))
    bundle = "/tmp/x/etc/nvattest/bundle.json"
    assert settings.inputs == ["/tmp/x/etc/nvattest/hook.toml", "/tmp/x/etc/p.toml", bundle]
    assert settings.nvml == "/tmp/x/lib/n.so"
    assert Settings(paths=Paths()).inputs == ["/etc/nvattest/hook.toml", "/etc/nvattest/bundle.json"]
    named = Settings(paths=Paths(), config=HookConfig(collateral_bundle="/b.json", trust_anchors="/a.pem"))
    assert named.inputs == ["/etc/nvattest/hook.toml", "/a.pem", "/b.json"]


def test_each_stage_has_its_budget_and_a_broken_configuration_blocks() -> None:
    settings = Settings(paths=Paths())
    assert [settings.budget(stage) for stage in (Stage.HOOK, Stage.INIT, Stage.WATCH, Stage.GATE)] == [8, 120, 120, 120]
    assert settings.on_failure == "start"
    assert Settings(paths=Paths(), error=InputError("x")).on_failure == "block"


# --- a configuration that --config names ------------------------------------------------------------------------------


def test_a_named_configuration_has_to_be_there_and_the_usual_one_need_not(tmp_path: Path) -> None:
    assert load_settings(Paths(str(tmp_path))).error is None
    settings = load_settings(Paths(str(tmp_path), "/mnt/hook.toml"))
    assert settings.error is not None
    assert str(settings.error).startswith("/mnt/hook.toml: No such file")
    assert settings.on_failure == "block"


@pytest.mark.parametrize("text", ["expected_gpu = 1", "= ="])
def test_what_is_wrong_with_a_named_configuration_is_told_by_its_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "hook.toml").write_text(text)
    settings = load_settings(Paths(str(tmp_path), "/hook.toml"))
    assert settings.error is not None
    assert str(settings.error).startswith("/hook.toml: ")
    assert str(settings.error).count("hook.toml: ") == 1


def test_the_bundle_is_looked_for_beside_a_named_configuration() -> None:
    paths = Paths("/root", "/mnt/image/hook.toml")
    assert Settings(paths=paths).inputs == ["/root/mnt/image/hook.toml", "/root/mnt/image/bundle.json"]
    assert Paths("", "/hook.toml").bundle == "/bundle.json"


def test_an_image_s_own_configuration_comes_before_the_guest_s(tmp_path: Path) -> None:
    root, program = str(tmp_path), "/run/kata-extensions/x/usr/share/oci/hooks/prestart/nvattest-hook"
    own = tmp_path / "run/kata-extensions/x/etc/nvattest/hook.toml"
    assert own_configuration(root, program) == ""
    own.parent.mkdir(parents=True)
    # What is meant to be there and cannot be read is an error, and not the guest's file in its place.
    own.symlink_to("nowhere")
    assert own_configuration(root, program) == "/run/kata-extensions/x/etc/nvattest/hook.toml"
    error = load_settings(Paths(root, own_configuration(root, program))).error
    assert error is not None
    own.unlink()
    own.write_text("expected_gpus = 2\n")
    settings = load_settings(Paths(root, own_configuration(root, program)))
    assert settings.config.expected_gpus == 2
    assert settings.paths.bundle == f"{root}/run/kata-extensions/x/etc/nvattest/bundle.json"
    # The program of the root image, and one of a Python environment, have the guest's.
    for other in ("/usr/share/oci/hooks/prestart/nvattest-hook", "/opt/venv/bin/python3", ""):
        assert own_configuration(root, other) == ""


def test_a_budget_from_which_the_agent_would_kill_the_hook_is_refused_with_the_reason() -> None:
    assert parse_config(b"[budget]\nhook = 8.5").budget_hook == 8.5
    with pytest.raises(InputError, match=r"budget.hook: .*to 8.5 \(an agent gives a hook up after 10.*found 9"):
        parse_config(b"[budget]\nhook = 9")
