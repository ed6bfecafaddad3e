"""Secrets at rest, the egress guard, tokens, redaction."""
