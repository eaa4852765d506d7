"""Device numbers as the kernel passes them, and file systems that are or are not."""

from __future__ import annotations

import os

import pytest

from supervisor.linux import mountinfo, statx, ustat


@pytest.mark.parametrize(
    ("major", "minor", "encoded"),
    # new_encode_dev, linux/kdev_t.h
    [(0, 52, 52), (8, 1, 0x801), (0, 0x1FF, 0x1000FF), (259, 0x12345, 0x12310345), (0, 256, 0x100000)],
)
def test_a_device_is_encoded_as_the_kernel_does(major: int, minor: int, encoded: int) -> None:
    assert ustat.encode_device(major, minor) == encoded


def test_the_roots_file_system_is_alive_and_an_unused_number_is_not() -> None:
    number = os.stat("/").st_dev
    assert ustat.is_alive((os.major(number), os.minor(number))) in (True, None)
    assert ustat.is_alive((0, 0xFFFFF)) in (False, None)


def test_statx_and_mountinfo_agree_on_the_mount_of_a_descriptor() -> None:
    fd = os.open("/proc", os.O_PATH)
    try:
        found = statx.mount_id(fd)
        assert found == mountinfo.mount_id_of(fd) == statx.mount_id(-100, b"/proc")
        (entry,) = mountinfo.read(only=frozenset({found}))
        assert entry.device == ustat.device_of(fd)
    finally:
        os.close(fd)
    with pytest.raises(OSError, match="statx"):
        statx.mount_id(-100, b"/proc/nothing-of-that-name")
