"""The wheel: all that users and packagers look for is in it, at the places where they look."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from nvattest._package import __version__
from nvattest.cli import COMMANDS
from nvattest.cli.manual import share

ROOT = Path(__file__).resolve().parents[2]
DATA = f"nvattest-{__version__}.data/data"
BUILD = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling")
    if not (ROOT / "pyproject.toml").is_file():
        pytest.skip("no checkout")
    folder = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(folder)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.split()[-1]


def tree(folder: Path, place: str) -> dict[str, bytes]:
    """The files of a folder of the checkout as they lie in the wheel below ``place``."""
    return {
        f"{place}/{path.relative_to(folder)}": path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_has_the_package_and_what_packagers_look_for_and_nothing_else(wheel: Path) -> None:
    expected = {
        **tree(ROOT / "nvattest", "nvattest"),
        **tree(ROOT / "schemas", "nvattest/schemas"),
        **tree(ROOT / "schemas", f"{DATA}/share/nvattest/schemas"),
        **tree(ROOT / "examples/policies", f"{DATA}/share/nvattest/policies"),
        f"{DATA}/share/nvattest/hook.toml": (ROOT / "examples/kata/hook.toml").read_bytes(),
        **{
            f"{DATA}/lib/systemd/system/{name}": (ROOT / "examples/systemd" / name).read_bytes()
            for name in ("nvattest-init.service", "nvattest-watch.service")
        },
        **{f"{DATA}/{place}": text.encode() for place, text in share().items()},
    }
    with zipfile.ZipFile(wheel) as archive:
        found = {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}
    assert set(found) == set(expected)
    assert found == expected


def test_every_command_has_its_man_page_and_every_shell_its_completion(wheel: Path) -> None:
    places = set(share())
    assert {f"share/man/man1/nvattest-{name}.1" for name in COMMANDS} | {"share/man/man1/nvattest.1"} <= places
    assert {os.path.dirname(place) for place in places} == {
        "share/man/man1", "share/bash-completion/completions", "share/zsh/site-functions", "share/fish/vendor_completions.d",
    }  # fmt: skip


def test_pip_puts_everything_below_the_prefix_and_the_installed_program_finds_its_schemas(
    wheel: Path, tmp_path: Path
) -> None:
    subprocess.run(
        # Without --ignore-installed pip would take the package that runs this test away.
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--no-compile", "--ignore-installed",
         "--prefix", str(tmp_path), str(wheel)],
        check=True, capture_output=True,
    )  # fmt: skip
    for place, text in share().items():
        assert (tmp_path / place).read_text() == text
    assert (tmp_path / "lib/systemd/system/nvattest-init.service").is_file()
    [package] = tmp_path.rglob("site-packages/nvattest/__init__.py")
    code = "from nvattest._package import schema_path; print(schema_path('hook-state-1.json'))"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(package.parents[1])}, cwd=tmp_path,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip().startswith(str(package.parent))
    completion = tmp_path / "share/bash-completion/completions/nvattest"
    done = subprocess.run(
        ["bash", "-c", f"source {completion} && complete -p nvattest"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_build_hook_needs_the_standard_library_alone() -> None:
    """An isolated build has hatchling and nothing else of ours."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from nvattest.cli.manual import share; import json; print(json.dumps(sorted(share())))"
    )
    if sys.version_info < (3, 11):
        pytest.skip("hatchling brings tomli for this Python")
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == sorted(share())


def test_the_container_file_refers_to_what_the_wheel_has_and_to_no_network(wheel: Path) -> None:
    text = (ROOT / "examples/container/Containerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    steps = [line.split(maxsplit=1) for line in text.splitlines() if line.strip() and not line.startswith("#")]
    last = len(steps) - 1 - [word for word, _ in reversed(steps)].index("FROM")
    # What is in the context is wheels; everything else comes from the base image or the first stage.
    copies = [value.split() for word, value in steps if word in ("COPY", "ADD")]
    assert copies == [["*.whl", "/wheels/"], ["--from=install", "/opt/nvattest", "/opt/nvattest"]]
    [installs] = [value for word, value in steps if word == "RUN"]
    assert "--no-index --find-links /wheels nvattest" in installs
    assert not {"apt-get", "curl", "wget", "git"} & set(installs.split())
    final = dict(steps[last:])
    assert set(final) == {"FROM", "COPY", "ENV", "USER", "WORKDIR", "ENTRYPOINT", "CMD"}
    assert int(final["USER"].split(":")[0]) > 0
    [program] = json.loads(final["ENTRYPOINT"])
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith("/entry_points.txt")]
        assert f"\n{program} = " in archive.read(name).decode()
        [name] = [name for name in archive.namelist() if name.endswith("/METADATA")]
        assert "\nName: nvattest\n" in archive.read(name).decode()
    # The base has a Python that the wheel takes.
    [base] = [value for word, value in steps if word == "ARG"]
    assert base == "BASE=docker.io/library/python:3.13-slim"
