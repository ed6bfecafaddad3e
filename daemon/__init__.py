"""vochid: the telephony daemon. Knows telephony; knows no CRM and no HTML."""

from daemon import compiled

compiled.prefer()
