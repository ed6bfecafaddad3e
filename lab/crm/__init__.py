"""CRM sandboxes: strict stand-ins on real sockets."""
