"""The staged workspace: what an agent changed is reviewed, applied, discarded and undone here.

::

    area, entry, version      the three directories; one entry looked at by descriptor; one state of it
    change, scan, pairing     what differs between the real folder and the agent's view of it
    runs_later, selection     which changes need naming; which ones a person chose
    diff                      the changes as text, as git prints them
    store, staging, journal,  a set of replacements that happens wholly or not at all, across a crash
      transaction, recovery
    apply, discard, undo      the three verbs
    marks                     what a session's own applies left, and what was discarded

Standard library only: all of it runs in the hand, as the owner, without capabilities.
"""
