"""What a bundle must not do although it is Rego: reach out, read the clock, guess, or hold by accident.

Works on the syntax tree, so no comment or spelling hides a call. The traps are those of OPA's language: `every` over
nothing is true, `not f(x)` is true where *f* does not fit its argument, `regex.match` looks anywhere in the text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from supervisor.errors import UsageError
from supervisor.policy.bundle_source import Bundle
from supervisor.policy.regorus_engine import RegoError, RegorusEngine, is_builtin, syntax_trees

PACKAGE: Final = "deskwarden"
# Names, or families of names ending in a dot.
BANNED: Final[Mapping[str, str]] = {
    "http.": "a decision depends on the input alone",
    "opa.": "a decision depends on the input alone",
    "net.lookup_ip_addr": "a decision depends on the input alone",
    "time.now_ns": "use input.now, so that a decision can be replayed",
    "rand.": "a decision must be the same when replayed",
    "uuid.": "a decision must be the same when replayed",
    "io.jwt.": "tokens are verified before policy",
    "print": "a policy says what it has to say in its answer",
    "trace": "a policy says what it has to say in its answer",
}
_TYPE_CHECKS: Final = frozenset(
    {"is_string", "is_number", "is_boolean", "is_array", "is_object", "is_set", "is_null", "type_name"}
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, and where."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}"


def check_bundle(bundle: Bundle) -> None:
    """Refuse a bundle that may not decide.

    Raises:
        UsageError: It does not load, or `lint` finds something; every finding is in the message.
    """
    try:
        findings = lint(bundle)
        if not findings:
            RegorusEngine(bundle.modules, bundle.document)
    except RegoError as error:
        raise UsageError(f"{bundle.path}: {error}", "deskwarden policy check DIR") from error
    if findings:
        raise UsageError("\n".join(f"{bundle.path}/{finding}" for finding in findings), "deskwarden policy check DIR")


def lint(bundle: Bundle) -> tuple[Finding, ...]:
    """Return what is wrong with the modules, in order.

    Raises:
        RegoError: A file is no Rego.
    """
    trees = syntax_trees({**bundle.modules, **bundle.tests})
    functions = {name for tree in trees.values() for name in _functions(tree)}
    findings: list[Finding] = []
    defaults = 0
    for name, tree in sorted(trees.items()):
        is_test = name in bundle.tests
        text = (bundle.tests if is_test else bundle.modules)[name].encode()
        module = _Module(name, text, is_test, frozenset(functions))
        findings += module.check(tree)
        defaults += sum(_is_default_decision(rule) for rule in tree["rules"])
    if defaults != 1:
        findings.append(Finding("decision.rego", 1, f"{defaults} times default decision, want it once"))
    return tuple(findings)


def rule_names(tree: Any) -> tuple[str, list[str]]:
    """Return the package of a module, and the names of its plain rules in order."""
    heads = (rule["Spec"]["head"].get("Compr") for rule in tree["rules"] if "Spec" in rule)
    return _path(tree["package"]["refr"]), [_path(head["refr"]) for head in heads if head]


def _is_default_decision(rule: Any) -> bool:
    return bool("Default" in rule and _path(rule["Default"]["refr"]) == "decision")


def _functions(tree: Any) -> Iterator[str]:
    for rule in tree["rules"]:
        head = rule["Spec"]["head"] if "Spec" in rule else {}
        if "Func" in head:
            yield _path(head["Func"]["refr"])


@dataclass(frozen=True, slots=True)
class _Module:
    name: str
    text: bytes
    is_test: bool
    functions: frozenset[str]

    def check(self, tree: Any) -> Iterator[Finding]:
        package = _path(tree["package"]["refr"])
        if package != PACKAGE and not package.startswith(f"{PACKAGE}."):
            yield self._finding(tree["package"], f"package {package}, want {PACKAGE}")
        if "rego.v1" not in {_path(item["refr"]) for item in tree["imports"]}:
            yield self._finding(tree["package"], "import rego.v1 is missing")
        yield from self._walk(tree["rules"], ())

    def _walk(self, node: Any, around: tuple[Any, ...]) -> Iterator[Finding]:
        """Check every node; *around* are the statements of the bodies that it is in."""
        if isinstance(node, list):
            for item in node:
                yield from self._walk(item, around)
        elif isinstance(node, dict):
            if isinstance(node.get("stmts"), list):
                around = (*around, *node["stmts"])
            for key, value in node.items():
                if key == "Call":
                    yield from self._check_call(value)
                elif key == "Every":
                    yield from self._check_every(value, around)
                elif key == "NotExpr":
                    yield from self._check_not(value, around)
                elif key == "with_mods" and value and not self.is_test:
                    yield self._finding(node, "with belongs into tests: it changes what the policy sees")
                yield from self._walk(value, around)

    def _check_call(self, call: Any) -> Iterator[Finding]:
        name = _path(call["fcn"])
        for banned, why in BANNED.items():
            if name == banned or (banned.endswith(".") and name.startswith(banned)):
                yield self._finding(call, f"{name}: {why}")
        if name not in self.functions and name.rpartition(".")[2] not in self.functions and not is_builtin(name):
            yield self._finding(call, f"{name}: the engine knows no such function")
        if name.startswith("regex.") and not self.is_test:
            pattern = call["params"][0].get("String", {}).get("value", "") if call["params"] else ""
            if not (pattern.startswith("^") and pattern.endswith("$")):
                yield self._finding(call, f"{name}: want a literal pattern from ^ to $")

    def _check_every(self, every: Any, around: tuple[Any, ...]) -> Iterator[Finding]:
        domain = self._source(every["domain"])
        counted = {self._source(param) for name, param in _calls(around) if name == "count"}
        if domain not in counted and not self.is_test:
            yield self._finding(every, f"every over {domain} is true when it is empty: say count({domain}) > 0 too")

    def _check_not(self, negated: Any, around: tuple[Any, ...]) -> Iterator[Finding]:
        if self.is_test:
            return
        checked = {self._source(param) for name, param in _calls(around) if name in _TYPE_CHECKS}
        for name, param in _calls((negated,)):
            if _reads_input(param) and self._source(param) not in checked:
                yield self._finding(
                    negated, f"not {name}(…) on the input is true when the type is wrong: name it as a rule of its own"
                )
                return

    def _source(self, expression: Any) -> str:
        span = next(iter(expression.values()))["span"]
        return self.text[span["start"] : span["end"]].decode("utf-8", "replace")

    def _finding(self, node: Any, text: str) -> Finding:
        return Finding(self.name, int(node["span"]["line"]), text)


def _path(reference: Any) -> str:
    """Return a reference as dotted names; an index that is no text is ``?``."""
    if "Var" in reference:
        return str(reference["Var"]["value"])
    if "RefDot" in reference:
        return f"{_path(reference['RefDot']['refr'])}.{reference['RefDot']['field'][1]}"
    if "RefBrack" in reference:
        index = reference["RefBrack"]["index"].get("String", {}).get("value", "?")
        return f"{_path(reference['RefBrack']['refr'])}.{index}"
    return "?"


def _calls(node: Any) -> Iterator[tuple[str, Any]]:
    """Yield each call below *node* with each of its arguments."""
    if isinstance(node, dict):
        if "Call" in node:
            name = _path(node["Call"]["fcn"])
            for param in node["Call"]["params"]:
                yield name, param
        for value in node.values():
            yield from _calls(value)
    elif isinstance(node, list | tuple):
        for item in node:
            yield from _calls(item)


def _reads_input(node: Any) -> bool:
    if isinstance(node, dict):
        if "Var" in node and node["Var"]["value"] == "input":
            return True
        return any(_reads_input(value) for value in node.values())
    return isinstance(node, list) and any(_reads_input(item) for item in node)
