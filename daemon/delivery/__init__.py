"""The durable outbox: from a committed row to a CRM that has it."""
