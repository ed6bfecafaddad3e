"""Every metric, declared once."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0, 10.0)

AMI_EVENTS = Counter("vochid_ami_events_total", "AMI events received", ["enterprise"])
AMI_UNSEEN = Counter("vochid_ami_unseen_total", "AMI frames that could not be read", ["enterprise", "reason"])
LINKS = Gauge("vochid_pbx_links", "PBX links by state", ["state"])
CALLS = Counter("vochid_calls_total", "Calls that ended", ["direction", "result"])
RECORD_SECONDS = Histogram("vochid_record_seconds", "Event arrival to durable commit", buckets=_FAST)
WRITER_WAITING = Gauge("vochid_writer_waiting", "Changed calls that wait for their commit")
DELIVERIES = Counter("vochid_delivery_attempts_total", "Attempts to tell a CRM", ["integration", "kind", "outcome"])
DELIVERY_SECONDS = Histogram("vochid_delivery_seconds", "Duration of an attempt", ["integration", "kind"], buckets=_FAST)
BACKLOG = Gauge("vochid_deliveries_open", "Deliveries waiting or in flight", ["integration", "state"])
OLDEST = Gauge("vochid_oldest_open_delivery_seconds", "Age of the oldest open delivery", ["integration"])
ORIGINATES = Counter("vochid_originates_total", "Calls by click, by the states they came to", ["source", "state"])
HTTP = Counter("vochid_http_requests_total", "Requests to the API", ["route", "status"])
SETTINGS_READS = Counter("vochid_settings_reads_total", "Reads of tenants' settings: hit, stale (served, read anew behind it), miss", ["result"])
SETTINGS_NOTIFIED = Counter("vochid_settings_notifications_total", "Notifications of changed settings: received, applied, failed", ["result"])
SETTINGS_SIZE = Gauge("vochid_settings_enterprises", "Enterprises in memory")
SETTINGS_AGE = Gauge("vochid_settings_age_seconds", "Since all settings were read last")
LOOP_LAG = Histogram("vochid_loop_lag_seconds", "How late the event loop is", buckets=_FAST)
FASTAGI = Counter("vochid_fastagi_dialogues_total", "FastAGI dialogues by how they ended", ["outcome"])
FASTAGI_OPEN = Gauge("vochid_fastagi_dialogues_open", "FastAGI dialogues that are open")
LOOKUPS = Counter("vochid_lookups_total", "Answers to `who looks after this customer`", ["status"])
LOOKUP_SECONDS = Histogram("vochid_lookup_seconds", "Time to such an answer", buckets=_FAST)
LOOKUP_CACHE = Counter("vochid_lookup_cache_total", "Looks into the cache of managers", ["outcome"])
LOOKUP_UNLOGGED = Counter("vochid_lookup_unlogged_total", "Decisions that did not fit into the log's queue")
BACKFILLED = Counter("vochid_calls_from_cdr_total", "Calls stored or completed from CDR", ["enterprise"])
UNCONFIRMED = Gauge("vochid_unconfirmed_calls", "Calls of the last day that a CRM's journal should have and did not confirm", ["integration", "state"])
NODES = Gauge("vochid_nodes", "Living daemons on this database")
LEASES = Gauge("vochid_leases", "PBXs that this daemon reads")
LEASES_LOST = Counter("vochid_leases_lost_total", "PBXs that this daemon read until its lease ran out")
NODE_MESSAGES = Counter("vochid_node_messages_total", "Messages between daemons: sent, heard, lost", ["outcome"])
NODE_ASKS = Counter("vochid_node_asks_total", "What other daemons were asked: answered, late, not_taken", ["kind", "outcome"])
