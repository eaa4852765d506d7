# What is given without asking anybody.
package deskwarden

import rego.v1

allow contains {
	"rule": "low-risk", "code": "low-risk",
	"text": "declared in the manifest, within the role, not sensitive, and reviewed before it is applied",
} if risk == "low"

allow contains {
	"rule": "standing-answer", "code": "answered-always",
	"text": "the owner answered always to this",
} if answered

allow contains {
	"rule": "launch-consent", "code": "launch-consent",
	"text": "the owner agreed to this when the agent was started",
} if launched
