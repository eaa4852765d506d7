"""Profiles: strict YAML, the schema, extends, what never shows, the ceiling, the environment."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from supervisor.errors import DeskwardenError, RefusedError, UsageError
from supervisor.sandbox.layers import LAYERS
from supervisor.sandbox.profile import (
    Ceiling,
    Profile,
    build_environment,
    check_ceiling,
    forbidden_name,
    never_read,
    secret_in_etc,
    secret_in_home,
)
from supervisor.sandbox.profile_source import (
    Origin,
    ProfileFile,
    Resolved,
    find_profiles,
    load_profile,
    packaged_directory,
    parse_duration,
    parse_size,
    resolve,
    schema,
    user_directory,
)
from supervisor.strict_yaml import MAX_FILE_BYTES, read_yaml

PACKAGED = ("coding", "data", "desktop", "strict")


def file(name: str, text: str, origin: Origin = Origin.USER) -> ProfileFile:
    return ProfileFile(name, origin, f"{name}.yaml", text.encode())


def made(text: str, *others: ProfileFile, name: str = "mine") -> Resolved:
    head = f"name: {name}\ndescription: d\n"
    return resolve(name, [*find_profiles(None), *others, file(name, head + text)])


def complaint(text: str, *others: ProfileFile) -> str:
    with pytest.raises(DeskwardenError) as caught:
        made(text, *others)
    assert caught.value.next_step
    return caught.value.message


# The packaged profiles.


@pytest.mark.parametrize("name", PACKAGED)
def test_packaged_profile_loads_and_names_only_known_layers(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    assert profile.lineage[-1] == "strict"
    assert set(profile.requires) | set(profile.preferred) <= set(LAYERS)
    assert not set(profile.requires) & set(profile.preferred)
    assert {"landlock", "seccomp", "no-new-privs", "net-namespace"} <= set(profile.requires)
    assert profile.network == "off"


def test_packaged_profiles_are_all_that_is_found_without_other_directories(tmp_path: Path) -> None:
    assert tuple(found.name for found in find_profiles(tmp_path / "no", tmp_path / "none")) == PACKAGED


def test_strict_shows_nothing_from_the_home_and_is_staged_only() -> None:
    profile = load_profile("strict")
    assert profile.files.home_read == ()
    assert profile.workspace.modes == ("staged",)
    assert not profile.seccomp.user_namespaces


def test_coding_adds_the_home_runtimes_but_no_credentials() -> None:
    shown = load_profile("coding").files.home_read
    assert {b".pyenv", b".nvm", b".cargo/bin", b".local/share/uv"} <= set(shown)
    assert not [path for path in shown if secret_in_home(path)]


def test_schema_is_valid_and_every_field_says_what_it_is() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    for name, rule in schema()["properties"].items():
        assert rule.get("description"), name
        for inner, inner_rule in rule.get("properties", {}).items():
            assert inner_rule.get("description") or inner == "mode", f"{name}.{inner}"


# Merging.


def test_value_replaces_list_adds_and_dash_takes_away() -> None:
    profile = made("extends: coding\nfiles: {system: [-/opt, /srv/tools]}\nlimits: {memory: 1GiB, pids: 7}\n").profile
    assert b"/opt" not in profile.files.system
    assert profile.files.system[-1] == b"/srv/tools"
    assert profile.limits.memory_bytes == 2**30
    assert profile.limits.pids == 7
    assert profile.limits.staged_bytes == load_profile("coding").limits.staged_bytes


def test_profile_without_parent_starts_from_the_schema_defaults() -> None:
    profile = made("").profile
    assert profile.limits.memory_bytes == 4 * 2**30
    assert profile.limits.wall_time_s is None
    assert profile.workspace.modes == ("staged",)
    assert profile.network == "off"
    assert profile.files.system == ()
    assert profile.requires == ()


def test_required_layer_leaves_preferred() -> None:
    profile = made("extends: strict\nrequires: [cgroup-limits]\n").profile
    assert "cgroup-limits" in profile.requires
    assert "cgroup-limits" not in profile.preferred


def test_origins_name_who_said_each_value() -> None:
    origins = made("extends: coding\nlimits: {tmp: 1GiB}\nfiles: {read: [/srv/x]}\n").origins
    assert origins["limits.tmp"] == "mine"
    assert origins["limits.memory"] == "coding"
    assert origins["limits.wall_time"] == "default"
    assert origins["files.read[/srv/x]"] == "mine"
    assert origins["files.system[/usr]"] == "strict"


def test_null_takes_a_fixed_variable_away() -> None:
    assert ("GIT_TERMINAL_PROMPT", "0") in load_profile("coding").environment.fixed
    assert made("extends: coding\nenvironment: {set: {GIT_TERMINAL_PROMPT: null}}\n").profile.environment.fixed == ()


def test_taking_away_what_the_parent_does_not_have_is_an_error() -> None:
    assert complaint("extends: strict\nfiles:\n  system:\n    - -/opt\n").startswith("mine.yaml:6:7: ")


def test_circle_is_refused_and_drawn() -> None:
    other = file("other", "name: other\ndescription: d\nextends: mine\n")
    assert "mine → other → mine" in complaint("extends: other\n", other)


def test_itself_as_parent_is_refused() -> None:
    assert "mine → mine" in complaint("extends: mine\n")


def test_too_many_parents_are_refused() -> None:
    chain = [file(f"p{i}", f"name: p{i}\ndescription: d\nextends: p{i + 1}\n") for i in range(12)]
    assert "more than 8 parents" in complaint("extends: p0\n", *chain)


def test_unknown_parent_is_named_with_its_place() -> None:
    assert complaint("extends: nobody\n").startswith("mine.yaml:3:10: no profile is called 'nobody'")


@pytest.mark.parametrize(("child", "parent"), [(Origin.PACKAGED, Origin.IT), (Origin.IT, Origin.USER)])
def test_profile_may_not_rest_on_one_of_lower_standing(child: Origin, parent: Origin) -> None:
    files = [
        file("base", "name: base\ndescription: d\n", parent),
        file("top", "name: top\ndescription: d\nextends: base\n", child),
    ]
    with pytest.raises(UsageError, match="may not extend"):
        resolve("top", files)


def test_user_may_not_shadow_a_packaged_name() -> None:
    with pytest.raises(RefusedError, match="used twice"):
        resolve("coding", [*find_profiles(None), file("coding", "name: coding\ndescription: d\n")])


def test_unknown_profile_says_which_there_are() -> None:
    with pytest.raises(UsageError, match="no profile is called 'codign'; there are: coding, data, desktop, strict"):
        load_profile("codign")


# Bad input: every complaint has file, line and column.


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("limits:\n  memory: 8GB\n", "4:11", "8GB"),
        ("limits:\n  memory: 8\n", "4:11", "is not of type 'string'"),
        ("limits:\n  pids: none\n", "4:9", "is not of type 'integer'"),
        ("limits: {pids: 0}\n", "3:16", "minimum"),
        ("limts: {}\n", "1:1", "known are"),
        ("limits: {memmory: 1GiB}\n", "3:9", "known are: file_size, memory"),
        ("network: {mode: on}\n", "3:17", "is not one of"),
        ("network: {mode: Off}\n", "3:17", "is not one of"),
        ("seccomp: {user_namespaces: yes}\n", "3:28", "boolean"),
        ("files:\n  read: [/srv, relative]\n", "4:16", "relative"),
        ("files: {read: [/srv/../etc]}\n", "3:16", "absolute path"),
        ("files: {home_read: [../other]}\n", "3:21", "relative path"),
        ("files: {home_read: [/abs]}\n", "3:21", "relative path"),
        ("files: {home_read: [.ssh/config]}\n", "3:21", "would show ~/.ssh"),
        ("files: {home_read: [.config]}\n", "3:21", "would show ~/"),
        ("files: {home_read: [.cargo]}\n", "3:21", ".cargo/credentials"),
        ("files: {etc: [shadow]}\n", "3:15", "/etc/shadow"),
        ("files: {etc: ['s*']}\n", "3:15", "/etc/shadow"),
        ("files: {etc: [ssl]}\n", "3:15", "/etc/ssl/private"),
        ("files: {etc: ['ss[hl]']}\n", "3:15", "/etc/ssh"),
        ("files: {read: [/]}\n", "3:16", "absolute path"),
        ("files: {read: [/etc]}\n", "3:16", "/etc"),
        ("files: {read: [/etc/shadow]}\n", "3:16", "shadow"),
        ("files: {read: [/proc/1/root]}\n", "3:16", "/proc"),
        ("files: {read: [/var]}\n", "3:16", "/var"),
        ("files: {read: [/home]}\n", "3:16", "/home"),
        ("files: {read: [/home/ann/.ssh/id]}\n", "3:16", ".ssh"),
        ("files: {system: [/root/.aws]}\n", "3:18", ".aws"),
        ("requires: [lanlock]\n", "3:12", "no layer is called 'lanlock'"),
        ("environment: {pass: [LD_PRELOAD]}\n", "3:22", "LD_PRELOAD"),
        ("environment: {pass: ['*']}\n", "3:22", "does not match"),
        ("environment: {set: {BASH_ENV: /x}}\n", "3:31", "BASH_ENV"),
        ("workspace: {default_mode: direct}\n", "3:27", "does not have"),
        ("devices: [kvm]\n", "3:11", "is not one of"),
        ("devices: [null]\n", "3:11", "is not one of"),
        ("name: twice\n", "3:1", "stands twice"),
        ("limits: {pids: 1, pids: 2}\n", "3:19", "stands twice"),
        ("limits: &a {pids: 1}\n", "3:9", "anchors and aliases"),
        ("limits: *a\n", "3:9", "anchors and aliases"),
        ("limits: !!python/object:os.system {}\n", "3:9", "tags are not allowed"),
        ("limits: {pids: 1\n", "4:1", "expected ',' or '}'"),
        ("\tlimits: 1\n", "3:1", "cannot start any token"),
        ("? [a]\n: 1\n", "3:3", "a key must be a word"),
    ],
)
def test_bad_input_is_named_with_line_and_column(text: str, place: str, words: str) -> None:
    message = complaint(text)
    assert message.startswith(f"mine.yaml:{place}: "), message
    assert words in message


def test_not_a_mapping_is_refused() -> None:
    for text in ("", "- a\n", "just words\n", "null\n"):
        with pytest.raises(UsageError, match=r"mine\.yaml:1:1: "):
            resolve("mine", [file("mine", text)])


def test_other_name_than_the_file_is_refused() -> None:
    with pytest.raises(UsageError, match="the file's name says 'mine'"):
        resolve("mine", [file("mine", "name: yours\ndescription: d\n")])


def test_two_documents_are_refused() -> None:
    with pytest.raises(UsageError, match=r"x:3:1: "):
        read_yaml(b"a: 1\n\n--- \nb: 1\n", "x", "step")


def test_bytes_that_are_not_text_are_refused_with_their_place() -> None:
    with pytest.raises(UsageError, match=r"x:2:4: not UTF-8"):
        read_yaml(b"a: 1\nb: \xff\n", "x", "step")
    with pytest.raises(UsageError, match=r"x:1:1: character"):
        read_yaml(b"a: \x07\n", "x", "step")


def test_deep_and_large_files_are_refused() -> None:
    with pytest.raises(UsageError, match="nested"):
        read_yaml(b"[" * 3000 + b"]" * 3000, "x", "step")
    with pytest.raises(UsageError, match="nested more than 16"):
        read_yaml(b"[" * 20 + b"]" * 20, "x", "step")
    with pytest.raises(UsageError, match="at most"):
        read_yaml(b"#" * (MAX_FILE_BYTES + 1), "x", "step")


def test_yaml_words_stay_words() -> None:
    value = read_yaml(b"a: [off, yes, no, 1:30, 0777, 1.5, 2020-01-01, 'true', true, 12, 0x10, ~]", "x", "step").value
    assert value["a"] == ["off", "yes", "no", "1:30", "0777", "1.5", "2020-01-01", "true", True, 12, 16, None]


@pytest.mark.parametrize(("text", "value"), [("1B", 1), ("512MiB", 512 << 20), ("8GiB", 8 << 30), ("none", None)])
def test_size_has_a_unit(text: str, value: int | None) -> None:
    assert parse_size(text) == value


@pytest.mark.parametrize(("text", "value"), [("90s", 90), ("20m", 1200), ("8h", 28800), ("2d", 172800), ("none", None)])
def test_duration_has_a_unit(text: str, value: int | None) -> None:
    assert parse_duration(text) == value


@pytest.mark.parametrize("text", ["", "8", "8GB", "GiB", "-1GiB", "1.5GiB", "8 GiB", "0B", "٣GiB", "9999999999B"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_size(text)


# Files that may not be trusted.


def write(directory: Path, name: str, mode: int = 0o600) -> Path:
    directory.mkdir(mode=0o755, exist_ok=True)
    path = directory / f"{name}.yaml"
    path.write_text(f"name: {name}\ndescription: d\n")
    path.chmod(mode)
    return path


def problem_of(name: str, files: tuple[ProfileFile, ...]) -> str:
    with pytest.raises(RefusedError) as caught:
        resolve(name, files)
    return caught.value.message


def test_own_profile_loads_and_one_that_others_can_write_does_not(tmp_path: Path) -> None:
    own = tmp_path / "own"
    write(own, "good")
    write(own, "open", 0o666)
    files = find_profiles(own, tmp_path / "it")
    assert resolve("good", files).profile.name == "good"
    assert "can be written by others (mode 0666)" in problem_of("open", files)


def test_directory_that_others_can_write_is_not_used(tmp_path: Path) -> None:
    own = tmp_path / "own"
    write(own, "good")
    own.chmod(0o777)
    assert "its directory can be written by others" in problem_of("good", find_profiles(own, tmp_path / "it"))


def test_symlink_is_followed_for_the_owner_but_not_for_it(tmp_path: Path) -> None:
    real = write(tmp_path / "real", "mine")
    for name in ("own", "it"):
        (tmp_path / name).mkdir(mode=0o755)
        (tmp_path / name / "mine.yaml").symlink_to(real)
    assert resolve("mine", find_profiles(tmp_path / "own", tmp_path / "none")).profile.name == "mine"
    found = find_profiles(None, tmp_path / "it")
    assert problem_of("mine", found)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_it_profile_must_belong_to_root(tmp_path: Path) -> None:
    path = write(tmp_path / "it", "ours", 0o644)
    assert resolve("ours", find_profiles(None, tmp_path / "it")).profile.name == "ours"
    os.chown(path, 12345, -1)
    assert "belongs to uid 12345" in problem_of("ours", find_profiles(None, tmp_path / "it"))


@pytest.mark.skipif(os.geteuid() == 0, reason="as root every file here belongs to root")
def test_it_profile_of_an_ordinary_user_is_not_used(tmp_path: Path) -> None:
    write(tmp_path / "it", "ours", 0o644)
    assert "belongs to uid" in problem_of("ours", find_profiles(None, tmp_path / "it"))


def test_fifo_is_refused_and_does_not_hang(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir(mode=0o755)
    os.mkfifo(own / "pipe.yaml", 0o600)
    assert "not a regular file" in problem_of("pipe", find_profiles(own, tmp_path / "it"))


def test_broken_profile_does_not_harm_the_others(tmp_path: Path) -> None:
    own = tmp_path / "own"
    write(own, "bad").write_text("name: [")
    assert resolve("coding", find_profiles(own, tmp_path / "it")).profile.name == "coding"


def test_user_directory_ignores_a_relative_xdg_value() -> None:
    assert user_directory({"XDG_CONFIG_HOME": "x", "HOME": "/h"}) == Path("/h/.config/deskwarden/profiles.d")
    assert user_directory({"XDG_CONFIG_HOME": "/x", "HOME": "/h"}) == Path("/x/deskwarden/profiles.d")


def test_packaged_directory_lies_beside_the_package() -> None:
    assert (packaged_directory() / "profile.schema.json").is_file()
    assert (packaged_directory().parent / "supervisor").is_dir()


# What is never shown.


@pytest.mark.parametrize(
    "path", [b".ssh", b".ssh/config", b".config", b".cargo", b".docker/config.json", b".local/share"]
)
def test_credentials_in_the_home_are_found_above_and_below(path: bytes) -> None:
    assert secret_in_home(path)


@pytest.mark.parametrize("path", [b".cargo/bin", b".sshx", b".config/fontconfig", b".local/share/uv"])
def test_neighbours_of_credentials_may_be_shown(path: bytes) -> None:
    assert secret_in_home(path) is None


@pytest.mark.parametrize("pattern", [b"shadow", b"*", b"sh?dow", b"ssh/x", b"ssl/*", b"sudoers.d/y", b"[a-z]*"])
def test_glob_that_would_show_a_secret_of_etc_is_found(pattern: bytes) -> None:
    assert secret_in_etc(pattern)


@pytest.mark.parametrize("pattern", [b"ssl/certs", b"python3*", b"ld.so.cache"])
def test_harmless_names_of_etc_pass(pattern: bytes) -> None:
    assert secret_in_etc(pattern) is None


@pytest.mark.parametrize("path", [b"/opt", b"/srv/x", b"/var/lib/texmf", b"/etc/ssl/certs", b"/home/ann/tools"])
def test_ordinary_absolute_paths_may_be_shown(path: bytes) -> None:
    assert never_read(path) is None


# The ceiling.


@pytest.fixture
def coding() -> Profile:
    return load_profile("coding")


def test_profile_below_the_ceiling_passes(coding: Profile) -> None:
    check_ceiling(coding, Ceiling())
    check_ceiling(coding, Ceiling(network="off", max_limits={"memory_bytes": 2**40}, user_namespaces=False))


@pytest.mark.parametrize(
    ("ceiling", "words"),
    [
        (Ceiling(modes=frozenset({"staged"})), "workspace.modes is direct"),
        (
            Ceiling(max_limits={"memory_bytes": 2**30}),
            "limits.memory_bytes is 8589934592; the managed policy allows 1073741824",
        ),
        (Ceiling(max_limits={"wall_time_s": 3600}), "limits.wall_time_s is none"),
        (Ceiling(forbidden_read=(b".cargo",)), "files.home_read is .cargo/bin"),
        (Ceiling(forbidden_read=(b"/opt/secret",)), "files.system is /opt"),
        (Ceiling(required_layers=frozenset({"cgroup-limits"})), "requires is no cgroup-limits"),
    ],
)
def test_field_above_the_ceiling_is_named(coding: Profile, ceiling: Ceiling, words: str) -> None:
    with pytest.raises(RefusedError, match=words.replace(".", r"\.")) as caught:
        check_ceiling(coding, ceiling)
    assert caught.value.exit_code == 126


@pytest.mark.parametrize(("mode", "most", "passes"), [("open", "profile", False), ("profile", "open", True)])
def test_network_modes_are_ordered(coding: Profile, mode: str, most: str, passes: bool) -> None:
    profile = replace(coding, network=mode)
    if passes:
        check_ceiling(profile, Ceiling(network=most))
    else:
        with pytest.raises(RefusedError, match=r"network\.mode is open; the managed policy allows profile"):
            check_ceiling(profile, Ceiling(network=most))


def test_ceiling_on_user_namespaces() -> None:
    with pytest.raises(RefusedError, match=r"seccomp\.user_namespaces"):
        check_ceiling(load_profile("desktop"), Ceiling(user_namespaces=False))


def test_ceiling_with_an_unknown_limit_is_an_error_not_a_pass(coding: Profile) -> None:
    with pytest.raises(ValueError, match="memroy"):
        check_ceiling(coding, Ceiling(max_limits={"memroy": 1}))


# The environment.

DANGEROUS = tuple(
    name
    for line in (
        "LD_PRELOAD LD_AUDIT LD_LIBRARY_PATH GCONV_PATH LOCPATH GLIBC_TUNABLES PYTHONSTARTUP PYTHONHOME PYTHONPATH",
        "NODE_OPTIONS BASH_ENV ENV BASH_FUNC_x%% GIT_SSH_COMMAND GIT_CONFIG_COUNT GIT_EXEC_PATH PERL5OPT RUBYOPT",
        "JAVA_TOOL_OPTIONS SSH_AUTH_SOCK DBUS_SESSION_BUS_ADDRESS DESKWARDEN_SOCKET",
    )
    for name in line.split()
)


def test_environment_is_built_from_nothing(coding: Profile) -> None:
    source = {"PATH": "/bin", "LC_ALL": "C", "AWS_SECRET_ACCESS_KEY": "x", "RANDOM_NAME": "y", "GIT_AUTHOR_NAME": "a"}
    assert build_environment(coding, source) == {
        "PATH": "/bin",
        "LC_ALL": "C",
        "GIT_AUTHOR_NAME": "a",
        "GIT_TERMINAL_PROMPT": "0",
    }


@pytest.mark.parametrize("name", DANGEROUS)
def test_dangerous_name_never_passes_even_by_pattern(coding: Profile, name: str) -> None:
    wide = replace(coding, environment=replace(coding.environment, passed=(name[:2] + "*", "*")))
    assert name not in build_environment(wide, {name: "x", "PATH": "/bin"})
    with pytest.raises(RefusedError, match="never passed"):
        build_environment(coding, {}, {name: "x"})


def test_override_takes_a_value_or_the_callers(coding: Profile) -> None:
    result = build_environment(coding, {"TOKEN": "t"}, {"TOKEN": None, "ABSENT": None, "A": "1", "PATH": "/x"})
    assert (result["TOKEN"], result["A"], result["PATH"]) == ("t", "1", "/x")
    assert "ABSENT" not in result


@pytest.mark.parametrize(("name", "value"), [("", "x"), ("A=B", "x"), ("1A", "x"), ("A", "x\0y"), ("Ä", "x")])
def test_override_that_is_no_pair_is_refused(coding: Profile, name: str, value: str) -> None:
    with pytest.raises(RefusedError, match="not a variable's name"):
        build_environment(coding, {}, {name: value})


def test_author_names_of_git_pass_its_other_switches_do_not() -> None:
    assert forbidden_name("GIT_AUTHOR_NAME") == ""
    assert forbidden_name("GIT_PROXY_COMMAND")
