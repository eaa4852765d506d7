"""The API: its generated modules are current, and its files keep the rules that clients of any language rely on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor import EnumDescriptor, FileDescriptor

from supervisor._proto.deskwarden.v1 import agent_pb2, types_pb2
from supervisor.broker.agent_door import Phase
from supervisor.policy.capability import OPERATIONS

ROOT = Path(__file__).parents[2]
GENERATED = ROOT / "supervisor" / "_proto"
FILES: tuple[FileDescriptor, ...] = (agent_pb2.DESCRIPTOR, types_pb2.DESCRIPTOR)


def sources(directory: Path) -> dict[str, str]:
    found = (path for path in directory.rglob("*.py*") if path.suffix in (".py", ".pyi"))
    return {str(path.relative_to(directory)): path.read_text() for path in found}


def test_generated_modules_are_what_the_compiler_makes_of_proto(tmp_path: Path) -> None:
    command = [sys.executable, "-B", ROOT / "scripts/proto", tmp_path]
    subprocess.run(command, check=True, timeout=300, cwd=ROOT)
    assert sources(tmp_path) == sources(GENERATED), "run scripts/proto and commit what it writes"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_enum_starts_with_an_unspecified_value_and_prefixes_its_names(file: FileDescriptor) -> None:
    for enum in file.enum_types_by_name.values():
        prefix = enum.name.upper() + "_"
        assert enum.values_by_number[0].name == f"{prefix}UNSPECIFIED"
        assert all(value.name.startswith(prefix) for value in enum.values)


def test_every_call_has_messages_of_its_own() -> None:
    for method in agent_pb2.DESCRIPTOR.services_by_name["CapabilityBroker"].methods:
        assert method.input_type.name == f"{method.name}Request"
        assert method.output_type.name == f"{method.name}Response"


def words(enum: EnumDescriptor) -> list[str]:
    return [value.name.removeprefix(enum.name.upper() + "_").lower().replace("_", "-") for value in enum.values][1:]


def test_the_messages_have_a_word_for_every_phase_and_operation() -> None:
    enums = types_pb2.DESCRIPTOR.enum_types_by_name
    assert words(enums["Phase"]) == [phase.value for phase in Phase]
    assert words(enums["Operation"]) == [word for kind in OPERATIONS.values() for word in kind]
    assert words(enums["Kind"]) == [kind.name.lower() for kind in OPERATIONS]
