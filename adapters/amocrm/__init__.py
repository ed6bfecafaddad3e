"""amoCRM / Kommo (API v4)."""
