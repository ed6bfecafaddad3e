"""Chaos: every promise under every fault, with an account of every call. `python -m lab.chaos`; docs/promises.md."""
