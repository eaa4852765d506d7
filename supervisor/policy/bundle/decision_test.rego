package deskwarden

import rego.v1

test_nothing_is_known_means_no if decision.effect == "deny" with input as {}

test_a_wrong_schema_is_never_judged if decision.effect == "deny" with input as {"schema": 2}

test_the_longer_of_two_durations_is_never_given if {
	ttl_s == 900 with input as {
		"request": {"duration_s": 1200, "kind": "file", "operations": ["read"]},
		"resource": {"level": "public", "classes": [], "complete": true},
		"agent": {"class": "user-owned", "manifest": {"covers": true, "level_max": "public", "duration_max_s": 3600}},
		"role": {"name": "r", "effect": "allow", "covers": true, "duration_s": 900},
	}
}

test_what_was_not_looked_at_is_one_level_higher if {
	level == 2 with input as {"resource": {"level": "internal", "classes": [], "complete": false}}
}
