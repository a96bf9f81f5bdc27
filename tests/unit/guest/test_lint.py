"""``nvattest hook lint`` on policies, initdata and the objects of Kubernetes, and on files that contradict each other."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from nvattest.cli import main
from nvattest.guest.extension import VerityParams, write_extension
from nvattest.guest.kata import lint_files

VERITY = str(VerityParams("ab" * 32, "cd" * 32, 100))
RULE = """\
package agent_policy
CreateSandboxRequest if {
	input.guest_hook_path == nvattest_hook_path
	count(input.kernel_modules) == 0
}
"""
NAMED = 'nvattest_hook_path := "/x/hooks"\n'
SHIPPED = """\
CreateSandboxRequest if {
    print("CreateSandboxRequest: input.guest_hook_path =", input.guest_hook_path)
    count(input.guest_hook_path) == 0
}
"""
BASE = """\
[hypervisor.qemu]
image = "/x"
kernel_params = "pci=realloc"
guest_hook_path = "/usr/share/oci/hooks"
"""


def errors(folder: Path, **files: str) -> list[str]:
    """The messages of all errors about these files; a name's last underscore stands for its dot."""
    paths = []
    for name, text in files.items():
        paths.append(folder / ".".join(name.rsplit("_", 1)))
        paths[-1].write_text(text)
    return [item.message for item in lint_files([str(path) for path in paths]) if item.severity == "error"]


# --- policy and initdata ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule", [NAMED + RULE, RULE.replace("nvattest_hook_path", '"/x/hooks"'), RULE + NAMED.replace(":", "")]
)
def test_a_policy_that_demands_a_path_is_good(tmp_path: Path, rule: str) -> None:
    assert errors(tmp_path, p_rego=rule) == []


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (SHIPPED, "is empty"),
        (NAMED + RULE + SHIPPED, "2 rules"),
        (RULE, "does not compare"),
        (NAMED + RULE.replace("\tinput.guest_hook_path", "\t# input.guest_hook_path"), "does not compare"),
        ("package agent_policy\ndefault CreateSandboxRequest := true\n", "no rule"),
        ("", "no rule"),
    ],
)
def test_a_policy_that_leaves_the_hook_to_the_host_is_refused(tmp_path: Path, rule: str, words: str) -> None:
    [message] = errors(tmp_path, p_rego=rule)
    assert words in message


def test_a_policy_and_a_configuration_that_name_two_paths_contradict_each_other(tmp_path: Path) -> None:
    [message] = errors(tmp_path, p_rego=NAMED + RULE, c_toml=BASE)
    assert message == "the policy demands /x/hooks, and c.toml has /usr/share/oci/hooks: no guest is created"
    assert errors(tmp_path, p_rego=NAMED + RULE, c_toml=BASE.replace("/usr/share/oci", "/x")) == []


def initdata(policy: str = NAMED + RULE, version: str = "0.1.0", algorithm: str = "sha384") -> str:
    return f"version = \"{version}\"\nalgorithm = \"{algorithm}\"\n[data]\n\"policy.rego\" = '''\n{policy}'''\n"


def annotated(text: str, **more: str) -> str:
    packed = base64.b64encode(gzip.compress(text.encode())).decode()
    annotations = {"io.katacontainers.config.hypervisor.cc_init_data": packed, **more}
    return json.dumps(pod() | {"metadata": {"annotations": annotations}})


def test_initdata_is_read_alone_and_out_of_a_pod_and_its_digest_is_said(tmp_path: Path) -> None:
    text = initdata()
    assert errors(tmp_path, i_toml=text, p_json=annotated(text)) == []
    digest = hashlib.sha384(text.encode()).hexdigest()
    found = [item.message for item in lint_files([str(tmp_path / "i.toml"), str(tmp_path / "p.json")])]
    assert sum(digest in message for message in found) == 2
    [message] = errors(tmp_path, p_json=annotated(text), c_toml=BASE)
    assert "no guest is created" in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (initdata(version="0.2.0"), "version"),
        (initdata(algorithm="md5"), "algorithm"),
        (initdata(policy=SHIPPED), "is empty"),
        ('version = "0.1.0"\nalgorithm = "sha256"\n[data]\n', "allows the host everything"),
    ],
)
def test_initdata_that_protects_nothing_is_refused(tmp_path: Path, text: str, words: str) -> None:
    for files in ({"i_toml": text}, {"p_json": annotated(text)}):
        [message] = errors(tmp_path, **files)
        assert words in message


def test_an_annotation_that_is_no_initdata_is_an_error_and_not_a_crash(tmp_path: Path) -> None:
    bomb = base64.b64encode(gzip.compress(b"x" * (5 << 20))).decode()
    for value in (
        "",
        "%%",
        base64.b64encode(b"plain").decode(),
        bomb,
        base64.b64encode(gzip.compress(b"x" * 999)[:30]).decode(),
    ):
        text = json.dumps(
            pod() | {"metadata": {"annotations": {"io.katacontainers.config.hypervisor.cc_init_data": value}}}
        )
        assert errors(tmp_path, p_json=text)


# --- Kubernetes -------------------------------------------------------------------------------------------------------


def pod(limits: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    container = {"name": "x", "resources": {"limits": limits or {"nvidia.com/pgpu": "1", "memory": "16Gi"}}}
    return {"kind": "Pod", "spec": {"runtimeClassName": "kata-nvattest-snp", "containers": [container]} | spec}


PODS = {
    "good": (pod(), ""),
    "no memory": (pod({"nvidia.com/pgpu": "1"}), "no memory limit"),
    "a count of switches": (pod({"nvidia.com/pgpu": "8", "nvidia.com/nvswitch": "2", "memory": "1Gi"}), "powers the guest off"),
    "an HGX node": (pod({"nvidia.com/pgpu": "8", "nvidia.com/nvswitch": "4", "memory": "1Gi"}), ""),
    "no class": (pod(runtimeClassName=None), "no runtimeClassName"),
    "our annotation of 1.0.0": (
        pod() | {"metadata": {"annotations": {"io.katacontainers.config.hypervisor.default_memory": "16384"}}}, "ignores it",
    ),
    "not even a pod": ({"kind": "Pod", "spec": [], "metadata": "x"}, "no runtimeClassName"),
    "containers of other types": (pod(containers=["x", {"resources": []}]), ""),
}  # fmt: skip


@pytest.mark.parametrize("name", list(PODS))
def test_a_pod_is_one_that_gets_its_gpus_and_memory(tmp_path: Path, name: str) -> None:
    document, words = PODS[name]
    found = errors(tmp_path, p_json=json.dumps(document))
    assert len(found) == (1 if words else 0)
    assert not words or words in found[0]


def runtime_class(**change: Any) -> dict[str, Any]:
    return {
        "kind": "RuntimeClass",
        "metadata": {"name": "kata-nvattest-snp"},
        "handler": "kata-nvattest-snp",
        "overhead": {"podFixed": {"sev-snp.amd.com/esids": "1"}},
        "scheduling": {
            "nodeSelector": {"nvidia.com/cc.ready.state": "true", "amd.feature.node.kubernetes.io/snp": "true"}
        },
        **change,
    }


CLASSES = {
    "good": (runtime_class(), []),
    "the state of one mode": (
        runtime_class(scheduling={"nodeSelector": {"nvidia.com/cc.mode.state": "on"}}), ["cc.ready.state", "snp"],
    ),
    "no key of the TEE": (runtime_class(overhead={"podFixed": {"memory": "10Gi"}}), ["esids"]),
    "the operator's label": (runtime_class(metadata={"labels": {"nvidia.com/kata-runtime-class": "true"}}), ["removes"]),
    "a debug class": (runtime_class(handler="kata-qemu-nvidia-gpu-snp-debug"), ["debug"]),
    "TDX without its own": (runtime_class(handler="kata-nvattest-tdx"), ["tdx", "tdx.intel.com/keys"]),
}  # fmt: skip


@pytest.mark.parametrize("name", list(CLASSES))
def test_a_class_selects_nodes_in_cc_mode_and_counts_keys(tmp_path: Path, name: str) -> None:
    document, words = CLASSES[name]
    found = errors(tmp_path, c_json=json.dumps(document))
    assert len(found) == len(words)
    for message, word in zip(found, words, strict=True):
        assert word in message


OPERATOR = {"sandboxWorkloads": {"enabled": True, "mode": "kata"}, "ccManager": {"defaultMode": "on"}}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (OPERATOR, []),
        # What 1.0.0 had: it renders with the mode kubevirt.
        ({"sandboxWorkloads": {"enabled": True}, "kataManager": {"enabled": True}}, ["mode", "kataManager"]),
        (OPERATOR | {"ccManager": {"defaultMode": True}}, ["defaultMode"]),
        (OPERATOR | {"ccManager": {"defaultMode": "ppcie"}}, ["defaultMode"]),
        ({"sandboxWorkloads": {}}, ["enabled", "mode"]),
    ],
)
def test_the_operator_s_values_deploy_what_a_guest_needs(
    tmp_path: Path, values: dict[str, Any], words: list[str]
) -> None:
    found = errors(tmp_path, v_json=json.dumps(values))
    assert len(found) == len(words)
    for message, word in zip(found, words, strict=True):
        assert word in message


def deploy(**change: Any) -> dict[str, Any]:
    runtime = {
        "baseConfig": "qemu-nvidia-gpu-snp-runtime-rs", "runtimeClass": json.dumps(runtime_class()),
        "dropIn": BASE.replace('image = "/x"\n', ""), "containerd": {"snapshotter": "nydus"},
    }  # fmt: skip
    return {
        "nodeFeatureRules": {"create": True},
        "shims": {"disableAll": True, "qemu-nvidia-gpu-snp-runtime-rs": {"enabled": True}},
        "defaultShim": {"amd64": "qemu-nvidia-gpu-snp-runtime-rs"},
        "customRuntimes": {"enabled": True, "runtimes": {"kata-nvattest-snp": runtime | change.pop("runtime", {})}},
        **change,
    }


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (deploy(), []),
        (deploy(nodeFeatureRules={"create": False}), ["nodeFeatureRules"]),
        (deploy(nodeFeatureRules={"create": "auto"}), []),
        (deploy(defaultShim={"amd64": "qemu-runtime-rs"}), ["defaultShim"]),
        (deploy(runtime={"baseConfig": "qemu-nvidia-gpu-snp"}), ["is not enabled"]),
        (deploy(runtime={"runtimeClass": json.dumps(runtime_class(overhead={}))}), ["esids"]),
        (deploy(runtime={"dropIn": '[hypervisor.qemu]\nkernel_params = "nvrc.smi.srs=1"\nguest_hook_path = "/x"'}), ["srs"]),
        (deploy(runtime={"dropIn": "[hypervisor"}), ["dropIn of"]),
        (deploy(customRuntimes={"runtimes": {"x": {"baseConfig": "qemu-nvidia-gpu-snp-runtime-rs"}}}), ["enabled"]),
    ],
)  # fmt: skip
def test_kata_deploy_s_values_install_classes_that_have_the_hook(
    tmp_path: Path, values: dict[str, Any], words: list[str]
) -> None:
    found = errors(tmp_path, v_json=json.dumps(values))
    assert len(found) == len(words)
    for message, word in zip(found, words, strict=True):
        assert word in message


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_ends_with_1_for_an_error_and_names_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = tmp_path / "good.rego", tmp_path / "bad.rego"
    good.write_text(NAMED + RULE)
    bad.write_text(SHIPPED)
    assert main(["hook", "lint", str(good)]) == 0
    capsys.readouterr()
    assert main(["hook", "lint", str(good), str(bad), "-f", "json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["good"] is False
    assert [(item["severity"], item["file"]) for item in document["checks"]] == [("ok", str(good)), ("error", str(bad))]
    assert main(["hook", "lint", str(tmp_path / "nothing")]) == 105


def test_drop_in_and_manifest_are_written_for_the_files_of_a_node(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, data, image, verity = (tmp_path / name for name in ("c.toml", "data", "x.img", "x.verity"))
    rust = "[runtime]\nhypervisor_name = 'qemu'\n"
    array = f'[[hypervisor.qemu.guest_extension_images]]\nname = "gpu"\npath = "/g"\nverity_params = "{VERITY}"\n'
    base.write_text(BASE.replace("pci=realloc", "pci=realloc nvrc.smi.srs=1") + rust + array)
    data.write_bytes(b"x" * 9000)
    verity.write_text(f"{write_extension(str(data), str(image))}\n")
    (tmp_path / "config.d").mkdir()
    written = tmp_path / "config.d/60-nvattest.toml"
    command = ["hook", "drop-in", str(base), "--image", str(image), "--verity", str(verity)]
    assert main([*command, "--output", str(written)]) == 0
    assert main(["hook", "lint", str(base)]) == 0
    capsys.readouterr()
    assert main(command) == 0
    assert capsys.readouterr().out == written.read_text()
    assert "/run/kata-extensions/nvattest/usr/share/oci/hooks" in written.read_text()
    # An image that is not the one of these fields is not written down.
    image.write_bytes(image.read_bytes()[:-4096])
    data.write_bytes(b"y" * 9000)
    write_extension(str(data), str(image))
    assert main(command) == 4
    assert main(command[:5]) == 105
    manifest = tmp_path / "components.toml"
    manifest.write_text(
        'schema_version = 1\n[paths]\n"ocicrypt-config" = "x"\n[[process]]\nid = "attestation-agent"\nlevel = 1\npath = "x"\n'
    )
    assert main(["hook", "manifest", str(manifest), "--gate", "--output", str(manifest)]) == 0
    assert main(["hook", "lint", str(manifest)]) == 0
    assert 'wait_socket = "/run/nvattest/token.json"' in manifest.read_text()
    assert main(["hook", "manifest", str(manifest)]) == 4


def test_a_gate_in_an_unpacked_image_without_a_bundle_is_said_before_the_image_is_built(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = tmp_path / "etc/kata-extensions/components.toml"
    programs = [tmp_path / "usr/bin/aa", tmp_path / "usr/share/oci/hooks/prestart/nvattest-hook"]
    for path in (manifest, *programs):
        path.parent.mkdir(parents=True, exist_ok=True)
    for path in programs:
        path.touch(mode=0o755)
    manifest.write_text(
        'schema_version = 1\n[paths]\n"ocicrypt-config" = "x"\n'
        '[[process]]\nid = "attestation-agent"\nlevel = 1\npath = "usr/bin/aa"\n'
    )
    assert main(["hook", "manifest", str(manifest)]) == 0
    assert capsys.readouterr().err == ""
    assert main(["hook", "manifest", str(manifest), "--gate", "--output", str(manifest)]) == 0
    assert "no guest will ever start" in capsys.readouterr().err
    assert main(["hook", "lint", str(manifest)]) == 1
    assert main(["hook", "manifest", str(manifest)]) == 4
    assert "it starts nvattest-hook already" in (said := "".join(capsys.readouterr()))
    assert "ends on this" not in said
    (tmp_path / "etc/nvattest").mkdir()
    (tmp_path / "etc/nvattest/bundle.json").touch()
    assert main(["hook", "lint", str(manifest)]) == 0
    programs[0].unlink()
    assert main(["hook", "lint", str(manifest)]) == 1


def test_a_file_of_no_known_kind_and_a_broken_one_are_errors(tmp_path: Path) -> None:
    assert errors(tmp_path, a_toml="x = 1") == ["no runtime configuration, no extension manifest and no initdata"]
    for name, text in (("b_toml", "x ="), ("c_yaml", "{"), ("d_json", "\x00")):
        assert len(errors(tmp_path, **{name: text})) == 1


@pytest.mark.parametrize("text", ["", "[]", "null", "- a list", "just words", '["JWT", "a.b.c"]', '{"result_code": 0}'])
def test_a_file_of_another_kind_is_an_error_and_never_good(tmp_path: Path, text: str) -> None:
    (tmp_path / "file.json").write_text(text)
    findings = lint_files([str(tmp_path / "file.json")])
    assert [item.severity for item in findings] == ["error"]
    assert main(["hook", "lint", str(tmp_path / "file.json")]) == 1


def test_an_unknown_object_beside_a_known_one_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "file.json").write_text('{"kind": "Service"}')
    assert [item.severity for item in lint_files([str(tmp_path / "file.json")])] == ["warning"]
