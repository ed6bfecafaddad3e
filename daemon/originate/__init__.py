"""Click-to-call: what may be dialled, dialled at most once, followed to its end."""
