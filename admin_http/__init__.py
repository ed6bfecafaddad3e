"""The web side: API, and later pages and webhooks. Calls the daemon's services; renders nothing of a CRM's own."""
