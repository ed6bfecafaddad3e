"""Enterprises and their settings: the document, its secrets, the cache."""
