"""vochid: the telephony daemon. Knows telephony; knows no CRM and no HTML."""
