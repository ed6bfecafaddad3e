"""Who looks after a customer, and whether that person can take the call now."""
