"""Benchmarks: Deskwarden beside other sandboxes and beside no sandbox, measured in one run. Not installed.

`scripts/bench NAME` runs one. A benchmark is a module with ``HELP`` and ``measure(options) -> Iterator[Row]``; `main`
lists them. Everything runs against a daemon of its own (`service`), so nothing that is in use is touched.
"""
