"""Read profiles: find the files, check them against the published schema, follow `extends`.

Bytes in, `Profile` values out; every complaint is ``file:line:column: what``. `resolve` is pure over `ProfileFile`
values, so the daemon can be handed an owner's file that another process read.
"""

from __future__ import annotations

import functools
import json
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import jsonschema

from supervisor.errors import DeskwardenError, RefusedError, UsageError
from supervisor.policy.manifest_schema import problems
from supervisor.policy.profile_manifest import profile_document
from supervisor.sandbox.layers import LAYERS
from supervisor.sandbox.profile import (
    AskedFor,
    Asks,
    Environment,
    Files,
    Limits,
    Profile,
    SeccompRules,
    Workspace,
    forbidden_name,
    never_read,
    secret_in_etc,
    secret_in_home,
)
from supervisor.strict_yaml import MAX_FILE_BYTES, Document, Where, read_yaml

IT_DIRECTORY: Final = Path("/etc/deskwarden/profiles.d")
MAX_PARENTS: Final = 8
DEFAULTS: Final = "default"  # the origin of values that the schema gives
SCHEMA_STEP: Final = "deskwarden profile schema"

_SIZES: Final = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_DURATIONS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Origin(StrEnum):
    """Who wrote a profile."""

    PACKAGED = "packaged"
    IT = "it"
    USER = "user"


_MAY_EXTEND: Final = {
    Origin.PACKAGED: (Origin.PACKAGED,),
    Origin.IT: (Origin.PACKAGED, Origin.IT),
    Origin.USER: (Origin.PACKAGED, Origin.IT, Origin.USER),
}


@dataclass(frozen=True, slots=True)
class ProfileFile:
    """A profile as found: its bytes, or the problem that keeps it from being used."""

    name: str
    origin: Origin
    path: str
    data: bytes = b""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Resolved:
    """An effective profile and, for each value (``limits.memory``, ``files.read[/opt]``), the profile it came from."""

    profile: Profile
    origins: Mapping[str, str] = field(default_factory=dict)


_held: list[Path] = []


def packaged_directory() -> Path:
    """Return where the packaged profiles are: beside `supervisor` in a checkout and in an installed wheel."""
    return _held[-1] if _held else Path(__file__).resolve().parent.parent.parent / "sandbox_profiles"


def hold_packaged_directory() -> None:
    """Keep the packaged profiles readable once this process is another user: a checkout may lie in a private home."""
    fd = os.open(packaged_directory(), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    _held.append(Path(f"/proc/self/fd/{fd}"))


def user_directory(environment: Mapping[str, str] | None = None) -> Path:
    """Return where the caller's own profiles are."""
    values = os.environ if environment is None else environment
    base = values.get("XDG_CONFIG_HOME", "")
    root = Path(base) if base.startswith("/") else Path(values.get("HOME") or os.path.expanduser("~")) / ".config"
    return root / "deskwarden" / "profiles.d"


def find_profiles(user: Path | None, it: Path = IT_DIRECTORY) -> tuple[ProfileFile, ...]:
    """Read every profile file: packaged, then IT's, then the user's. Nothing is parsed yet.

    A file that may not be trusted is returned with its *problem*, so that asking for it says why.
    """
    found = [*_read_directory(packaged_directory(), Origin.PACKAGED)]
    found += _read_directory(it, Origin.IT)
    if user is not None:
        found += _read_directory(user, Origin.USER)
    return tuple(found)


def load_profile(name: str, user: Path | None = None, it: Path = IT_DIRECTORY) -> Profile:
    """Return the effective profile *name*; *user* is the owner's directory, None leaves it out."""
    return resolve(name, find_profiles(user, it)).profile


def resolve(name: str, files: Sequence[ProfileFile]) -> Resolved:
    """Follow `extends` from *name* to its root and return the effective profile. Pure.

    Raises:
        UsageError: No such profile, or a file that does not fit the schema, with file, line and column.
        RefusedError: A file that may not be trusted, or a name used twice.
    """
    chain: list[tuple[ProfileFile, Document]] = []
    wanted, asked_by = name, None
    while wanted:
        file = _pick(wanted, files, asked_by[0] if asked_by else None, asked_by[1] if asked_by else None)
        if file.name in [earlier.name for earlier, _ in chain]:
            raise chain[-1][1].error(("extends",), f"extends turns in a circle: {_arrows(chain, wanted)}")
        if len(chain) > MAX_PARENTS:
            raise chain[-1][1].error(("extends",), f"more than {MAX_PARENTS} parents: {_arrows(chain, wanted)}")
        document = parse_profile(file)
        chain.append((file, document))
        wanted, asked_by = document.value.get("extends", ""), (file, document)
    return _effective(chain)


def parse_profile(file: ProfileFile) -> Document:
    """Parse and check one file against the schema, alone."""
    if file.problem:
        raise RefusedError(f"{file.path}: {file.problem}", f"correct it, then: deskwarden profile check {file.path}")
    document = read_yaml(file.data, file.path, SCHEMA_STEP)
    problem = jsonschema.exceptions.best_match(_validator().iter_errors(document.value))
    if problem is not None:
        raise document.error(tuple(problem.absolute_path), _schema_text(problem))
    if document.value["name"] != file.name:
        raise document.error(("name",), f"the file's name says {file.name!r}, `name` says {document.value['name']!r}")
    return document


@functools.cache
def schema() -> Mapping[str, Any]:
    """Return the published schema of a profile file."""
    value: Mapping[str, Any] = json.loads((packaged_directory() / "profile.schema.json").read_bytes())
    return value


@functools.cache
def _validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(schema())


def _schema_text(problem: jsonschema.ValidationError) -> str:
    where = ".".join(str(part) for part in problem.absolute_path) or "the profile"
    rule: Mapping[str, Any] = problem.schema if isinstance(problem.schema, dict) else {}
    if problem.validator == "additionalProperties" and "properties" in rule:
        return f"{where}: {problem.message}; known are: {', '.join(sorted(rule['properties']))}"
    about = str(rule.get("description", ""))
    return f"{where}: {problem.message[:300]}{f' ({about})' if about and problem.validator == 'pattern' else ''}"


def _read_directory(directory: Path, origin: Origin) -> Iterable[ProfileFile]:
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith(".yaml"))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        yield ProfileFile("", origin, str(directory), problem=f"cannot be read: {error.strerror}")
        return
    directory_problem = "" if origin is Origin.PACKAGED else _untrusted(os.stat(directory), origin, "its directory")
    for name in names:
        if origin is Origin.PACKAGED and name == "seccomp.yaml":  # not a profile
            continue
        path = str(directory / name)
        stem = name.removesuffix(".yaml")
        if directory_problem:
            yield ProfileFile(stem, origin, path, problem=directory_problem)
        else:
            yield read_profile_file(path, origin)


def read_profile_file(path: str, origin: Origin) -> ProfileFile:
    """Read one file, judged by its descriptor; the owner's may be a symlink (dotfile managers), IT's may not."""
    name = os.path.basename(path).removesuffix(".yaml")
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (os.O_NOFOLLOW if origin is Origin.IT else 0)
    try:
        fd = os.open(path, flags)
    except OSError as error:
        return ProfileFile(name, origin, path, problem=f"cannot be read: {error.strerror}")
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return ProfileFile(name, origin, path, problem="not a regular file")
        if origin is not Origin.PACKAGED and (problem := _untrusted(status, origin, "it")):
            return ProfileFile(name, origin, path, problem=problem)
        return ProfileFile(name, origin, path, os.read(fd, MAX_FILE_BYTES + 1))
    finally:
        os.close(fd)


def _untrusted(status: os.stat_result, origin: Origin, what: str) -> str:
    owners = (0,) if origin is Origin.IT else (0, os.geteuid())
    if status.st_uid not in owners:
        return f"{what} belongs to uid {status.st_uid}, expected {' or '.join(map(str, owners))}"
    if status.st_mode & 0o022:
        return f"{what} can be written by others (mode {stat.S_IMODE(status.st_mode):04o}); chmod go-w"
    return ""


def _pick(name: str, files: Sequence[ProfileFile], child: ProfileFile | None, document: Document | None) -> ProfileFile:
    """Choose the file for *name*; a name belongs to the first directory that has it."""
    same = [file for file in files if file.name == name]
    known = ", ".join(sorted({file.name for file in files if file.name and not file.problem}))
    if not same:
        text = f"no profile is called {name!r}; there are: {known}"
        if child is not None and document is not None:
            raise document.error(("extends",), text, "deskwarden profile list")
        raise UsageError(text, "deskwarden profile list")
    if len(same) > 1:
        raise RefusedError(
            f"the profile name {name!r} is used twice: {same[0].path} and {same[1].path}",
            f"rename {same[1].path} and write `extends: {name}` in it",
        )
    if child is not None and document is not None and same[0].origin not in _MAY_EXTEND[child.origin]:
        raise document.error(("extends",), f"a profile from {child.origin} may not extend one from {same[0].origin}")
    return same[0]


def _arrows(chain: Sequence[tuple[ProfileFile, Document]], last: str) -> str:
    return " → ".join([*(file.name for file, _ in chain), last])


def _effective(chain: Sequence[tuple[ProfileFile, Document]]) -> Resolved:
    value, origins = _defaults()
    for file, document in reversed(chain):
        _merge(value, document.value, (), document, origins, file.name)
    nearest = chain[0][1]
    _check_values(value, chain)
    lineage = tuple(file.name for file, _ in chain)
    try:
        profile = _build(value, lineage)
    except DeskwardenError as error:
        raise nearest.error((), error.message) from error
    return Resolved(profile, origins)


def _defaults() -> tuple[dict[str, Any], dict[str, str]]:
    """Return the schema's defaults as the root of every chain of parents."""
    value: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for key, rule in schema()["properties"].items():
        if "properties" in rule:
            value[key] = {name: _copy(inner["default"]) for name, inner in rule["properties"].items()}
            origins |= {f"{key}.{name}": DEFAULTS for name in rule["properties"]}
        elif "default" in rule:
            value[key] = _copy(rule["default"])
            origins[key] = DEFAULTS
    return value, origins


def _copy(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _merge(
    base: dict[str, Any],
    child: Mapping[str, Any],
    where: Where,
    document: Document,
    origins: dict[str, str],
    name: str,
) -> None:
    for key, given in child.items():
        here = (*where, key)
        dotted = ".".join(map(str, here))
        if isinstance(given, dict):
            _merge(base.setdefault(key, {}), given, here, document, origins, name)
        elif isinstance(given, list):
            _merge_list(base.setdefault(key, []), given, here, document, origins, name)
        elif given is None:
            base.pop(key, None)
            origins.pop(dotted, None)
        elif key != "extends":
            base[key] = given
            origins[dotted] = name


def _merge_list(
    base: list[str], given: Sequence[str], where: Where, document: Document, origins: dict[str, str], name: str
) -> None:
    dotted = ".".join(map(str, where))
    for index, entry in enumerate(given):
        taken = entry.removeprefix("-")
        if entry == taken:
            if entry not in base:
                base.append(entry)
                origins[f"{dotted}[{entry}]"] = name
        elif taken in base:
            base.remove(taken)
            origins.pop(f"{dotted}[{taken}]", None)
        else:
            raise document.error((*where, index), f"{dotted}: {entry!r} takes away what the parent does not have")


_Chain = Sequence[tuple[ProfileFile, Document]]


def _check_values(value: Mapping[str, Any], chain: _Chain) -> None:
    """Check what the schema cannot say; each complaint points at the file that wrote the value."""
    for key in ("requires", "preferred"):
        for layer in value[key]:
            if layer not in LAYERS:
                raise _error_at(chain, (key,), layer, f"{key}: no layer is called {layer!r}", "deskwarden doctor")
    files = value["files"]
    for key, judge, place in (
        ("home_read", secret_in_home, "~/"),
        ("etc", secret_in_etc, "/etc/"),
        ("read", never_read, ""),
        ("system", never_read, ""),
    ):
        for entry in files[key]:
            if secret := judge(os.fsencode(entry)):
                text = f"files.{key}: {entry!r} would show {place}{os.fsdecode(secret)}, which no profile may"
                raise _error_at(chain, ("files", key), entry, text)
    for entry in value["environment"]["pass"]:
        if not entry.endswith("*") and (reason := forbidden_name(entry)):
            raise _error_at(chain, ("environment", "pass"), entry, f"environment.pass: {entry}: {reason}")
    for entry in value["environment"]["set"]:
        if reason := forbidden_name(entry):
            raise _error_at(chain, ("environment", "set"), entry, f"environment.set: {entry}: {reason}")
    _check_asks(value["asks"], chain)
    workspace = value["workspace"]
    if workspace["default_mode"] not in workspace["modes"]:
        text = f"workspace.default_mode is {workspace['default_mode']}, which workspace.modes does not have"
        raise chain[0][1].error(("workspace", "default_mode"), text)


def _check_asks(asks: Mapping[str, Any], chain: _Chain) -> None:
    """Hold the asks against the manifest's own rules, with a home for ``~/``."""
    for name, asked in asks["capabilities"].items():
        missing = [key for key in ("kind", "selector", "ops", "justification") if not asked.get(key)]
        if missing:
            raise _at(chain, ("asks", "capabilities", name), f"missing: {', '.join(missing)}")
    found = _asks(asks)
    value = profile_document("agent", "owner", "/home/owner", found.entries(), found.duration_max_s, found.roles)
    for where, text in problems(value):
        place: Where = ("asks",)
        if len(where) > 1 and where[0] == "capabilities":
            place = ("asks", "capabilities", found.capabilities[int(where[1])].id)
        raise _at(chain, place, text)


def _at(chain: _Chain, where: Where, text: str) -> UsageError:
    """Return an error at *where* in the nearest profile that has it."""
    for _, file in chain:
        here: Any = file.value
        for key in where:
            here = here.get(key) if isinstance(here, dict) else None
        if here is not None:
            return file.error(where, f"{'.'.join(map(str, where))}: {text}", SCHEMA_STEP)
    return chain[0][1].error((), f"{'.'.join(map(str, where))}: {text}", SCHEMA_STEP)


def _error_at(chain: _Chain, where: Where, entry: str, text: str, next_step: str = SCHEMA_STEP) -> UsageError:
    for _, document in chain:
        here: Any = document.value
        for key in where:
            here = here.get(key, {}) if isinstance(here, dict) else {}
        if entry in here:
            place: Where = (*where, here.index(entry) if isinstance(here, list) else entry)
            return document.error(place, text, next_step)
    return chain[0][1].error(where, text, next_step)


def _build(value: Mapping[str, Any], lineage: tuple[str, ...]) -> Profile:
    limits, seccomp = value["limits"], value["seccomp"]
    return Profile(
        name=value["name"],
        description=value["description"],
        lineage=lineage,
        requires=tuple(value["requires"]),
        preferred=tuple(layer for layer in value["preferred"] if layer not in value["requires"]),
        workspace=Workspace(tuple(value["workspace"]["modes"]), value["workspace"]["default_mode"]),
        files=Files(**{key: _paths(value["files"][key]) for key in ("system", "etc", "home_read", "read", "ask")}),
        protected=_paths(value["protected"]),
        runs_later=_paths(value["runs_later"]),
        environment=Environment(
            tuple(value["environment"]["pass"]), tuple(sorted(value["environment"]["set"].items()))
        ),
        network=value["network"]["mode"],
        devices=tuple(value["devices"]),
        limits=Limits(
            memory_bytes=parse_size(limits["memory"]),
            pids=limits["pids"],
            open_files=limits["open_files"],
            file_size_bytes=parse_size(limits["file_size"]),
            staged_bytes=parse_size(limits["staged"]),
            tmp_bytes=parse_size(limits["tmp"]),
            wall_time_s=parse_duration(limits["wall_time"]),
        ),
        seccomp=SeccompRules(seccomp["user_namespaces"], tuple(seccomp["allow_extra"]), tuple(seccomp["deny_extra"])),
        asks=_asks(value["asks"]),
    )


def _asks(value: Mapping[str, Any]) -> Asks:
    capabilities = tuple(
        AskedFor(
            name,
            asked["kind"],
            asked["selector"],
            tuple(sorted(asked["ops"])),
            asked.get("label_max", "internal"),
            asked["justification"],
        )
        for name, asked in sorted(value["capabilities"].items())
    )
    return Asks(capabilities, parse_duration(value["duration_max"]) or 0, tuple(value["roles"]))


def _paths(entries: Iterable[str]) -> tuple[bytes, ...]:
    return tuple(entry.encode() for entry in entries)


def parse_size(text: str) -> int | None:
    """Return ``8GiB`` as bytes, ``none`` as None."""
    return _quantity(text, _SIZES, "a size such as 512MiB or 8GiB")


def parse_duration(text: str) -> int | None:
    """Return ``20m`` as seconds, ``none`` as None."""
    return _quantity(text, _DURATIONS, "a duration such as 90s, 20m or 8h")


def _quantity(text: str, units: Mapping[str, int], expected: str) -> int | None:
    if text == "none":
        return None
    digits = text.rstrip("BKMGTismhd")
    unit = text[len(digits) :]
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 9 or unit not in units or not int(digits):
        raise UsageError(f"{text!r} is not {expected}", f"write {expected}, or none")
    return int(digits) * units[unit]
