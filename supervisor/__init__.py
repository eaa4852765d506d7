"""Deskwarden launches AI agents as their owner, in a sandbox that starts with nothing.

Imports go down only; `tests/unit/test_floors.py` keeps it true::

    5  cli          daemon          what people type            composition root
    4  session                      a session's life
    3  sandbox      workspace       siblings: they never import each other
    1  linux                        one file per kernel facility, standard library only
    0  errors ids clock config protocol
"""
