"""Runtime registers: the arithmetic is checked, and so is that nobody came between."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable

import pytest
from fake_kernel import MEASUREMENTS, FakeKernel, failure

from nvattest.errors import CollectionError, InputError
from nvattest.tee.tsm import extend_register

DIGEST = bytes(range(48))
PATH = f"{MEASUREMENTS}/rtmr3:sha384"
Boot = Callable[..., FakeKernel]


def test_a_register_is_extended_once_and_read_back(boot: Boot) -> None:
    kernel = boot(registers={PATH: bytes(48)})
    once = hashlib.sha384(bytes(48) + DIGEST).digest()
    assert extend_register(DIGEST, folder=MEASUREMENTS) == once == kernel.registers[PATH]
    assert extend_register(DIGEST, folder=MEASUREMENTS) == hashlib.sha384(once + DIGEST).digest()
    assert kernel.handles == {}


def test_an_extension_by_another_program_is_seen(boot: Boot) -> None:
    def intrude(kernel: FakeKernel, path: str) -> None:
        kernel.registers[path] = hashlib.sha384(kernel.registers[path] + bytes(48)).digest()

    boot(registers={PATH: bytes(48)}, after_extend=intrude)
    with pytest.raises(CollectionError) as caught:
        extend_register(DIGEST, folder=MEASUREMENTS)
    assert caught.value.code == "rtmr-race"


def test_a_write_without_effect_is_seen(boot: Boot) -> None:
    def undo(kernel: FakeKernel, path: str) -> None:
        kernel.registers[path] = bytes(48)

    boot(registers={PATH: bytes(48)}, after_extend=undo)
    with pytest.raises(CollectionError) as caught:
        extend_register(DIGEST, folder=MEASUREMENTS)
    assert caught.value.code == "rtmr-race"


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.ENOENT, "rtmr-missing"), (errno.EACCES, "rtmr-permission"), (errno.EIO, "rtmr-error")],
)
def test_a_register_that_cannot_be_used_says_why(number: int, code: str, boot: Boot) -> None:
    def refuse(path: str) -> None:
        raise failure(number, path)

    kernel = boot(registers={PATH: bytes(48)}, on_open=refuse)
    with pytest.raises(CollectionError) as caught:
        extend_register(DIGEST, folder=MEASUREMENTS)
    assert caught.value.code == code
    assert kernel.registers[PATH] == bytes(48)


@pytest.mark.parametrize("size", [0, 47, 49])
def test_a_register_of_another_size_is_refused_before_anything_is_written(size: int, boot: Boot) -> None:
    kernel = boot(registers={PATH: bytes(size)})
    with pytest.raises(CollectionError) as caught:
        extend_register(DIGEST, folder=MEASUREMENTS)
    assert caught.value.code == "rtmr-error"
    assert kernel.registers[PATH] == bytes(size)


@pytest.mark.parametrize(
    ("digest", "register"), [(bytes(47), 3), (bytes(49), 3), (DIGEST, 0), (DIGEST, 1), (DIGEST, 4)]
)
def test_wrong_arguments_are_refused(digest: bytes, register: int, boot: Boot) -> None:
    boot(registers={PATH: bytes(48)})
    with pytest.raises(InputError):
        extend_register(digest, register=register, folder=MEASUREMENTS)
