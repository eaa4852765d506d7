# What the rules speak of, derived once from the input. Only total values: a rule that negates one can rely on it.
package deskwarden

import rego.v1

ranks := {"public": 0, "internal": 1, "confidential": 2, "restricted": 3}

# What was not looked at counts as one level higher.
default unseen := 1

unseen := 0 if input.resource.complete

level := min([3, ranks[input.resource.level] + unseen])

classes := {class | some class in input.resource.classes}

default protected := false

protected if level == 3

protected if count(classes & {class | some class in data.config.protected_classes}) > 0

default writes := false

writes if "write" in input.request.operations

default user_owned := false

user_owned if input.agent.class == "user-owned"

default within_manifest := false

within_manifest if {
	input.agent.manifest.covers
	level <= ranks[input.agent.manifest.level_max]
}

default within_role := false

within_role if {
	input.role.effect == "allow"
	input.role.covers
}

# Critical: what cannot be taken back once it is out or changed. Low: everyday work in the declared place.
default risk := "medium"

risk := "critical" if {
	grave_role
} else := "critical" if {
	protected
	grave
} else := "high" if {
	protected
} else := "low" if {
	level < 2
	within_manifest
	within_role
	input.request.kind in data.config.low_risk_kinds
}

grave if writes

grave if count(classes & {class | some class in data.config.critical_classes}) > 0

grave_role if input.role.name in data.config.admin_roles

# The owner's word was given before, and holds here.
default answered := false

answered if {
	user_owned
	input.rule.answer == "always"
	input.ceiling.always
	level < 2
	not protected
}

default launched := false

launched if {
	input.request.launch
	input.owner.consented
	within_manifest
	level < 2
	not protected
}

default settled := false

settled if answered

settled if launched
