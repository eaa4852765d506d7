# What is never given, whoever asks for it and whoever would approve. Every entry says what to do instead.
package deskwarden

import rego.v1

deny contains {
	"rule": "never", "code": "answered-never",
	"text": "the owner answered never to this",
	"next": "work without it; the owner can take the answer back with: deskwarden rules rm",
} if input.rule.answer == "never"

deny contains {
	"rule": "role-deny", "code": "role-denies",
	"text": sprintf("the role %s denies this", [input.role.binding]),
	"next": "ask security for another role, or work without it",
} if input.role.effect == "deny"

deny contains {
	"rule": "credential-store", "code": "credential-store",
	"text": "this is a store of keys or passwords; no agent reads one",
	"next": "ask for the use of one secret by its name instead: deskwarden-agent request secret NAME",
} if {
	"credential-store" in classes
	input.request.kind == "file"
}

deny contains {
	"rule": "chain-exceeds-parent", "code": "chain-exceeds-parent",
	"text": "the agent that started this one does not have it, and cannot pass it on",
	"next": "let the agent that started you ask for it first, or ask the owner to start you alone",
} if not input.chain.parent_covers

deny contains {
	"rule": "chain-depth", "code": "chain-depth",
	"text": sprintf("%d agents deep, at most %d are allowed", [input.chain.depth, input.chain.max_depth]),
	"next": "do the work in the agent above",
} if input.chain.depth > input.chain.max_depth

deny contains {
	"rule": "manifest-scope", "code": "outside-manifest",
	"text": "the agent's signed manifest does not declare this",
	"next": "add it to the manifest, have it signed, and start again: deskwarden manifest check",
} if {
	not user_owned
	not within_manifest
}

deny contains {
	"rule": "role-scope", "code": "outside-role",
	"text": "no role of this agent covers this",
	"next": "ask security for a role that covers it: deskwarden role list",
} if {
	not user_owned
	not within_role
}

deny contains {
	"rule": "manifest-unsigned", "code": "manifest-unsigned",
	"text": "a service agent needs a manifest that its publisher signed",
	"next": "deskwarden manifest verify tells which signature is missing",
} if {
	input.agent.class == "service"
	not "publisher" in input.agent.manifest.signed_by
}

deny contains {
	"rule": "posture-fail", "code": "posture-fail",
	"text": sprintf("this machine fails its health check; no access of %s risk until it passes", [risk]),
	"next": "deskwarden posture shows what to repair",
} if {
	input.posture.state == "fail"
	risk != "low"
}

deny contains {
	"rule": "posture-unknown", "code": "posture-unknown",
	"text": sprintf("the health of this machine is not known; that is no pass for %s risk", [risk]),
	"next": "deskwarden posture shows what is missing",
} if {
	input.posture.state == "unknown"
	risk != "low"
}

deny contains {
	"rule": "flood", "code": "denied-too-often",
	"text": sprintf("%d requests of this session were denied; no further one is asked", [input.history.denied]),
	"next": "work with what you have, and tell the owner what is missing",
} if input.history.denied >= data.config.max_denied

deny contains {
	"rule": "asking-off", "code": "asking-off",
	"text": "this needs a person's yes, and asking is switched off here",
	"next": "have it allowed beforehand, by a role or in the manifest",
} if {
	not input.ceiling.asking
	count(clauses) > 0
}

deny contains {
	"rule": "no-time", "code": "no-time",
	"text": "the manifest or the role leaves no time for this",
	"next": "have a duration declared in the manifest",
} if ttl_s <= 0
