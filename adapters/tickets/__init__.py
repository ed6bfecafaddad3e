"""The ticket bridge between a mini app and a CRM, in either role."""
