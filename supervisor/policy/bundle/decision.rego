# The one answer: an enforced denial wins; else every required clause; else an allow rule; else no.
package deskwarden

import rego.v1

default decision := {
	"effect": "deny",
	"risk": "critical",
	"reasons": [{"code": "engine:undefined", "text": "the policy has no answer to this"}],
	"next_steps": ["tell security: the policy is incomplete"],
	"rules": [],
	"observed": [],
	"policy_rev": "",
}

denied contains entry if {
	some entry in deny
	enforced(entry)
}

required contains entry if {
	some entry in approval
	enforced(entry)
}

clauses contains clause if {
	some entry in required
	some clause in entry.clauses
}

enforced(entry) if object.get(data.config.modes, entry.rule, "enforce") != "observe"

observed contains {"code": entry.code, "text": entry.text} if {
	some entry in deny | approval
	not enforced(entry)
}

decision := answer("deny", denied, {}) if {
	count(denied) > 0
} else := answer("escalate", required, {"quorum": quorum, "obligations": obligations}) if {
	count(required) > 0
} else := answer("allow", allow, {"obligations": obligations}) if {
	count(allow) > 0
} else := answer("deny", {no_rule}, {}) if {
	input.schema == 1
}

no_rule := {
	"rule": "no-rule", "code": "no-rule",
	"text": "no rule allows this",
	"next": "ask for less: deskwarden-agent have shows what you may use",
}

answer(effect, entries, more) := object.union(more, {
	"effect": effect,
	"risk": risk,
	"reasons": {{"code": entry.code, "text": entry.text} | some entry in entries},
	"next_steps": {entry.next | some entry in entries},
	"rules": {entry.rule | some entry in entries},
	"observed": observed,
	"policy_rev": data.bundle.revision,
})
