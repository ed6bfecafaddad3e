-- Who waits for a call back, the latest first, however many wait.

create index missed_calls_waiting on missed_calls (enterprise_number, missed_at desc, call_id desc) where closed_at is null;
