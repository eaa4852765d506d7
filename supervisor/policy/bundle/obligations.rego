# What a grant is bound to, and what a quorum looks like.
package deskwarden

import rego.v1

obligations := {
	"ttl_s": ttl_s,
	"max_uses": input.request.uses,
	"copy": copy,
	"read_only": read_only,
	"always": always,
}

# The shortest of all that limit it.
ttl_s := min({input.request.duration_s, input.agent.manifest.duration_max_s, data.config.duration_max_s[risk]} | role_limit)

role_limit := {input.role.duration_s | input.role.effect == "allow"}

# Sensitive files are read from a copy that ends with the grant; so is a pattern, whose matches are fixed when asked.
default copy := false

copy if {
	input.request.kind == "file"
	sensitive
}

copy if {
	input.request.kind == "file"
	not writes
	contains(input.request.selector, "*")
	not whole_tree
}

default whole_tree := false

whole_tree if endswith(input.request.selector, "/**")

default sensitive := false

sensitive if level >= 2

sensitive if protected

default read_only := false

read_only if {
	input.request.kind == "file"
	protected
}

# Whether the owner may answer always.
default always := false

always if {
	input.ceiling.always
	level < 2
	not protected
	not input.role.name in data.config.admin_roles
	not input.role.requires_approval
}

# Nobody approves what they asked for themselves: never the agent; its owner only where the owner is the one asked.
excluded contains input.agent.id

excluded contains input.owner.name if not owner_asked

default owner_asked := false

owner_asked if {
	some clause in clauses
	some party in clause.any_of
	party.team == "owner"
}

quorum := {
	"clauses": clauses,
	"distinct_teams": max({entry.distinct_teams | some entry in required}),
	"min_assurance": max({data.config.min_assurance[risk], level_assurance}),
	"excluded": excluded,
}

default level_assurance := 0

level_assurance := data.config.sensitive_assurance if sensitive
