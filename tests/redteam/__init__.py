"""Attacks that must fail: each test does the real thing inside a real sandbox, then looks at the host.

Where it is cheap the same code runs on the host too (`tests.service.outside`) and must work there: a test that cannot
see the attack succeed says nothing. Run as root the agents are those of the system service, run as an ordinary user
those of a rootless one; the tests are the same.

Lines of the attack list that are left out, because the part they attack is not built yet:

- the network door: unset proxy variables, the control API, odd host names, domain fronting, request smuggling,
  redirects, metadata addresses, DNS and UDP exfiltration, inbound connections, allowed hosts as exits, long flows after
  a withdrawal, tenant swap, the redirect listener's port. (That nothing is reachable today is in `test_sockets`.)
- the broker and its grants: opens that wait for a decision (today an ask-area is a stub that refuses at once:
  `test_mounts`), a bind-mounted socket swapped for a denied one, descriptors over a granted socket, file portals and
  desktop file forwarding
- exec through user notification: copies and renames of a denied program, the loader as a way round a denied path, the
  two races of notification (rewritten arguments, reused pids)
- approvals, tokens, attestation, policy, log and telemetry: the whole of those sections
- the take-back of sessions by a restarted daemon (today they are killed after 10 s: `tests/integration/cli`)
- `replay` in a terminal (no recordings yet); `logs`, `diff` and `attach` are in `test_terminal`
"""
