"""Where sockets and state lie, also for a caller without HOME or a login session."""

from __future__ import annotations

import os
import pwd

from supervisor.config import rootless_places, system_places


def test_xdg_directories_are_used_when_they_are_absolute() -> None:
    places = rootless_places({"XDG_RUNTIME_DIR": "/", "XDG_STATE_HOME": "/s", "HOME": "/h"}, 1000)
    assert places.launch_socket == "//deskwarden/launch.sock"
    assert places.state == "/s/deskwarden"


def test_without_a_login_session_the_runtime_directory_is_named_by_uid() -> None:
    assert rootless_places({"HOME": "/h"}, 1234).runtime == "/tmp/deskwarden-1234"
    assert rootless_places({"HOME": "/h", "XDG_RUNTIME_DIR": "relative"}, 1234).runtime == "/tmp/deskwarden-1234"


def test_without_home_the_account_says_where_it_is() -> None:
    home = pwd.getpwuid(os.getuid()).pw_dir
    assert rootless_places({}, os.getuid()).state == f"{home}/.local/state/deskwarden"
    assert rootless_places({"HOME": "relative"}, os.getuid()).state == f"{home}/.local/state/deskwarden"


def test_the_system_service_has_fixed_places() -> None:
    assert system_places({}).launch_socket == "/run/deskwarden/launch.sock"
    assert system_places({}).state == "/var/lib/deskwarden"
