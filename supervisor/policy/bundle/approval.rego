# Who has to say yes, and when. Every entry adds clauses; all of them must be met.
package deskwarden

import rego.v1

# Who answers for everyday questions: the owner of the session, for a service those who operate it.
local_clause := {"id": "owner", "any_of": [{"team": "owner", "role": ""}], "least": 1} if user_owned

local_clause := {"id": "operator", "any_of": data.config.operators, "least": 1} if not user_owned

# For each class found that somebody is responsible for, one of them.
owner_clauses contains {"id": sprintf("data-owner:%s", [class]), "any_of": parties, "least": 1} if {
	some class, parties in data.config.data_owners
	class in classes
}

approval contains {
	"rule": "protected-data", "code": "protected-data",
	"text": sprintf("%s data: two people of different teams must agree, one of them security or compliance", [shown_level]),
	"next": "say what you need it for, and ask for as few files as possible",
	"clauses": protected_clauses,
	"distinct_teams": 2,
} if protected

protected_clauses := owner_clauses | {{"id": "second", "any_of": data.config.reviewers, "least": 1}} if {
	count(owner_clauses) > 0
}

protected_clauses := {
	{"id": "first", "any_of": data.config.approvers, "least": 1},
	{"id": "second", "any_of": data.config.reviewers, "least": 1},
} if {
	count(owner_clauses) == 0
}

approval contains {
	"rule": "confidential-data", "code": "confidential-data",
	"text": "confidential data: its owner has to agree",
	"next": "say what you need it for, and ask for as few files as possible",
	"clauses": owner_clauses | {local_clause},
	"distinct_teams": 1,
} if {
	level == 2
	not protected
}

approval contains {
	"rule": "admin-role", "code": "admin-role",
	"text": sprintf("%s changes the machine: operators and security must agree", [input.role.name]),
	"next": "describe each step and how it is undone",
	"clauses": {
		{"id": "operator", "any_of": data.config.operators, "least": 1},
		{"id": "second", "any_of": data.config.reviewers, "least": 1},
	},
	"distinct_teams": 2,
} if input.role.name in data.config.admin_roles

approval contains {
	"rule": "role-approval", "code": "role-requires-approval",
	"text": sprintf("the role %s asks each time", [input.role.binding]),
	"next": "wait for the answer",
	"clauses": {local_clause},
	"distinct_teams": 1,
} if input.role.requires_approval

approval contains {
	"rule": "beyond-manifest", "code": "outside-manifest",
	"text": "the agent's manifest does not declare this",
	"next": "wait for the answer",
	"clauses": {local_clause},
	"distinct_teams": 1,
} if {
	user_owned
	not within_manifest
	not answered
}

approval contains {
	"rule": "beyond-role", "code": "outside-role",
	"text": "no role of this agent covers this",
	"next": "wait for the answer",
	"clauses": {local_clause},
	"distinct_teams": 1,
} if {
	user_owned
	not within_role
	not settled
}

approval contains {
	"rule": "consent", "code": "owner-consent",
	"text": "the owner has not agreed to this agent yet",
	"next": "wait for the answer",
	"clauses": {local_clause},
	"distinct_teams": 1,
} if {
	user_owned
	not input.owner.consented
}

approval contains {
	"rule": "not-low-risk", "code": "not-low-risk",
	"text": sprintf("%s risk: only low risk is allowed without a person", [risk]),
	"next": "wait for the answer",
	"clauses": {local_clause},
	"distinct_teams": 1,
} if {
	risk == "medium"
	level < 2
	not settled
}

default shown_level := "protected"

shown_level := "restricted" if level == 3
