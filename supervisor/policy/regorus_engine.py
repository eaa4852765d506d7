"""Rego by regorus: the one file that knows the library. Blocks, holds the interpreter lock; meant for the worker.

What it answers is checked against `golden` cases before the first policy is loaded: an engine that compares numbers as
text would grant the longer of two durations (regopy does).

Source: the `regorus` module of gordon-to-regorus 0.13 (microsoft/regorus 0.11); OPA's policy language reference.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any, Final

import regorus  # type: ignore[import-untyped]

from supervisor.policy import golden

DECISION: Final = "data.deskwarden.decision"
# regorus answers so for a rule without a value; no decision is a text, so it cannot be taken for one.
UNDEFINED: Final = "<undefined>"
MAX_ERROR_CHARACTERS: Final = 500


class RegoError(Exception):
    """The engine refused a module, raised while evaluating, or is not the engine that it should be."""


class RegorusEngine:
    """One bundle, loaded and ready.

    Args:
        modules: File name → Rego text.
        data: The document ``data`` of the policy.

    Raises:
        RegoError: The self-test failed, or the bundle does not load. Nothing is half loaded.
    """

    def __init__(self, modules: Mapping[str, str], data: Mapping[str, Any]) -> None:
        _self_test()
        self._engine: Any = _new_engine(modules)
        try:
            self._engine.add_data_json(json.dumps(data))
        except Exception as error:
            raise _said(error) from error
        # Rules are checked for what they call when they are prepared, with the first question; a bundle that does
        # not know what to say to an empty document is broken too.
        self.evaluate(b"{}")

    def evaluate(self, document: bytes, rule: str = DECISION) -> bytes:
        """Return the JSON of *rule* for the JSON input *document*.

        Raises:
            RegoError: The rule raised, or has no value.
        """
        try:
            self._engine.set_input_json(document.decode())
            answer: str = self._engine.eval_rule_as_json(rule)
        except Exception as error:
            raise _said(error) from error
        if answer == f'"{UNDEFINED}"':
            raise RegoError(f"{rule} is undefined")
        return answer.encode()


def syntax_trees(modules: Mapping[str, str]) -> dict[str, Any]:
    """Return file name → syntax tree, for the checks before a bundle is used.

    Raises:
        RegoError: A file is no Rego.
    """
    return {entry["source"]["file"]: entry["ast"] for entry in json.loads(_new_engine(modules).get_ast_as_json())}


@functools.cache
def is_builtin(name: str) -> bool:
    """Return whether the engine knows the function; it finds out about an unknown one only when it is called."""
    try:
        engine = _new_engine({"probe.rego": f"package probe\n\nimport rego.v1\n\nr := {name}()\n"})
        engine.eval_rule_as_json("data.probe.r")
    except Exception as error:  # noqa: BLE001 - a known one complains about its arguments
        return "could not find function" not in str(error)
    return True


def _new_engine(modules: Mapping[str, str]) -> Any:
    engine: Any = regorus.Engine()
    for name, text in sorted(modules.items()):
        try:
            engine.add_policy(name, text)
        except Exception as error:
            raise _said(error) from error
    return engine


def _self_test() -> None:
    """Compare the engine with what OPA's language reference says.

    Raises:
        RegoError: It differs; it must not decide anything.
    """
    global _tested  # noqa: PLW0603 - the same library answers the same for the life of the process
    if _tested:
        return
    engine = _new_engine({"golden.rego": golden.module()})
    try:
        engine.set_input_json(json.dumps(golden.INPUT))
        answers: Any = json.loads(engine.eval_query_as_json("data.golden"))["result"][0]["expressions"][0]["value"]
    except Exception as error:
        raise _said(error) from error
    for name, (rule, expected) in golden.named_values():
        seen = answers.get(name, golden.NOTHING)
        if not _same(seen, expected):
            raise RegoError(f"the engine is wrong: {rule} is {seen!r}, want {expected!r}")
    for rule in golden.ERRORS:
        _check_error(rule)
    _tested = True


def _same(seen: Any, expected: Any) -> bool:
    """Compare as text: to Python, ``True`` is 1."""
    if seen is golden.NOTHING or expected is golden.NOTHING:
        return seen is expected
    return json.dumps(seen, sort_keys=True) == json.dumps(expected, sort_keys=True)


def _check_error(rule: str) -> None:
    """Require that evaluating *rule* raises: an unknown function that is merely undefined would open a ``not``."""
    try:
        engine = _new_engine({"error.rego": f"package golden\n\nimport rego.v1\n\n{rule}\n"})
        engine.set_input_json(json.dumps(golden.INPUT))
        answer = engine.eval_rule_as_json("data.golden.r")
    except Exception:  # noqa: BLE001 - whatever the library raises is the right answer
        return
    raise RegoError(f"the engine is wrong: {rule} is {answer}, want an error")


def _said(error: Exception) -> RegoError:
    """Return what the library said, without its stack, bounded."""
    text = str(error).partition("Stack backtrace:")[0].strip()
    return RegoError(text[:MAX_ERROR_CHARACTERS] or type(error).__name__)


_tested = False
