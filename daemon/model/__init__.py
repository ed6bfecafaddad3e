"""Frozen values that every room speaks: numbers, calls, what CRMs are told. Imports nothing of ours."""
