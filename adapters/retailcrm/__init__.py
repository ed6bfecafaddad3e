"""RetailCRM (API v5)."""
