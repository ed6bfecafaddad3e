-- Calls that were not seen, not answered, or have to be explained: PBX states, missed calls, traces, completion from CDR.

-- Until when a PBX was seen without a gap, and which boot of it that was.
create table pbx_states (
  enterprise_number text not null,
  pbx text not null,
  boot text not null,
  seen_at timestamptz not null,
  primary key (enterprise_number, pbx)
);

-- A missed call until somebody talked with that customer. Withheld numbers are not here: nobody can be called back.
create table missed_calls (
  enterprise_number text not null,
  call_id uuid not null,
  customer_number text not null,
  line text,
  missed_at timestamptz not null,        -- when the customer was gone
  closed_at timestamptz,                 -- when somebody talked with them, or said it was done
  closed_how text check (closed_how in ('called_back', 'got_through', 'done')),
  closed_by text,                        -- an extension, or who pressed the button
  closed_by_call uuid,
  told_at timestamptz,                   -- when CRMs were planned to be told that it is closed
  primary key (enterprise_number, call_id),
  foreign key (enterprise_number, call_id) references calls (enterprise_number, id) on delete cascade
);
create index missed_calls_open on missed_calls (enterprise_number, customer_number) where closed_at is null;
create index missed_calls_newest on missed_calls (enterprise_number, missed_at desc);
create index missed_calls_untold on missed_calls (enterprise_number) where closed_at is not null and told_at is null;

create index deliveries_call on deliveries (enterprise_number, call_id);

-- What the PBX said of a call and what the model made of it: one compressed row per call, gone with its day.
create table call_traces (
  enterprise_number text not null,
  call_id uuid not null,
  stored_at timestamptz not null default now(),
  events int not null,
  left_out int not null,                 -- events beyond the bound
  masked boolean not null,
  raw bytea not null,                    -- zlib: frames, each closed by an empty line
  chunks bytea not null,                 -- zlib: JSON [[offset_bytes, unix_time_s], …]
  changes bytea not null                 -- zlib: JSON of what the model said, in order
) partition by range (stored_at);
alter table call_traces alter column raw set storage external;  -- compressed already
create index call_traces_call on call_traces (enterprise_number, call_id);
create table call_traces_default partition of call_traces default;

do $$
declare
  name text;
begin
  foreach name in array array['pbx_states', 'missed_calls', 'call_traces'] loop
    execute format('alter table %I enable row level security', name);
    execute format('create policy tenant on %I using (enterprise_number = tenant()) with check (enterprise_number = tenant())', name);
    execute format('grant select, insert, update, delete on %I to vochid_app', name);
  end loop;
end $$;

-- Retention of traces: partitions for a week ahead, none older than p_days.
create function keep_traces(p_days int) returns void language plpgsql security definer set search_path = public as $$
declare
  day date;
  part text;
begin
  for day in select generate_series(current_date, current_date + 7, interval '1 day')::date loop
    part := 'call_traces_' || to_char(day, 'YYYYMMDD');
    if to_regclass(part) is null and not exists (
        select from call_traces_default where stored_at >= day and stored_at < day + 1) then
      execute format('create table %I partition of call_traces for values from (%L) to (%L)', part, day, day + 1);
    end if;
  end loop;
  for part in
    select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'call_traces'::regclass and c.relname ~ '^call_traces_[0-9]{8}$'
      and to_date(right(c.relname, 8), 'YYYYMMDD') < current_date - p_days
  loop
    execute format('drop table %I', part);
  end loop;
  delete from call_traces_default where stored_at < now() - make_interval(days => p_days);
end $$;

-- Calls and what is to be told about them, in one go. Gives how many missed calls were closed by it.
create function store_changes(p_enterprise text, p_pbx text, p_calls jsonb, p_deliveries jsonb)
returns int language plpgsql as $$
declare
  closed int := 0;
begin
  insert into calls as c (enterprise_number, id, pbx, linkedid, direction, customer_number, customer_name, line, started_at,
      answered_at, ended_at, wait_seconds, talk_seconds, result, missed, rang, answered_by, last_talked, initiator,
      transfers, queue, click_to_call, consult, recordings, gap)
    select p_enterprise, n.id, p_pbx, n.linkedid, n.direction, n.customer_number, n.customer_name, n.line, n.started_at,
      n.answered_at, n.ended_at, n.wait_seconds, n.talk_seconds, n.result, n.missed,
      array(select jsonb_array_elements_text(n.rang)), n.answered_by, n.last_talked, n.initiator,
      n.transfers, n.queue, n.click_to_call, n.consult, array(select jsonb_array_elements_text(n.recordings)), n.gap
    from jsonb_to_recordset(p_calls) as n (id uuid, linkedid text, direction text, customer_number text, customer_name text,
      line text, started_at timestamptz, answered_at timestamptz, ended_at timestamptz, wait_seconds double precision,
      talk_seconds double precision, result text, missed boolean, rang jsonb, answered_by text, last_talked text,
      initiator text, transfers jsonb, queue text, click_to_call boolean, consult boolean, recordings jsonb, gap boolean)
    on conflict (enterprise_number, id) do update set
      linkedid = excluded.linkedid, direction = excluded.direction, customer_number = excluded.customer_number,
      customer_name = excluded.customer_name, line = excluded.line, answered_at = excluded.answered_at,
      ended_at = excluded.ended_at, wait_seconds = excluded.wait_seconds, talk_seconds = excluded.talk_seconds,
      result = excluded.result, missed = excluded.missed, rang = excluded.rang, answered_by = excluded.answered_by,
      last_talked = excluded.last_talked, initiator = excluded.initiator, transfers = excluded.transfers,
      queue = excluded.queue, click_to_call = excluded.click_to_call, consult = excluded.consult,
      recordings = excluded.recordings, gap = c.gap or excluded.gap, updated_at = now();

  insert into legs as l (enterprise_number, call_id, position, channel, number, kind, started_at, answered_at, ended_at, cause)
    select p_enterprise, n.id, leg.position, leg.value ->> 'channel', leg.value ->> 'number', leg.value ->> 'kind',
      (leg.value ->> 'started_at')::timestamptz, (leg.value ->> 'answered_at')::timestamptz,
      (leg.value ->> 'ended_at')::timestamptz, (leg.value ->> 'cause')::int
    from jsonb_to_recordset(p_calls) as n (id uuid, legs jsonb),
      jsonb_array_elements(n.legs) with ordinality as leg (value, position)
    on conflict (enterprise_number, call_id, position) do update set
      channel = excluded.channel, number = excluded.number, kind = excluded.kind, started_at = excluded.started_at,
      answered_at = excluded.answered_at, ended_at = excluded.ended_at, cause = excluded.cause;

  if jsonb_array_length(p_deliveries) > 0 then
    insert into deliveries (enterprise_number, integration, call_id, kind, key, priority, payload, expires_at)
      select p_enterprise, n.integration, n.call_id, n.kind, n.key, n.priority, n.payload, now() + make_interval(secs => n.expires_s)
      from jsonb_to_recordset(p_deliveries) as n (integration text, call_id uuid, kind text, key text, priority int,
        payload jsonb, expires_s double precision)
      on conflict (enterprise_number, integration, key) do nothing;
  end if;

  -- Missed and called back. Most changes are neither: a look at the JSON is all that they pay.
  if jsonb_path_exists(p_calls, '$[*] ? (@.missed == true && @.ended_at != null && @.customer_number != null && @.consult == false)') then
    insert into missed_calls (enterprise_number, call_id, customer_number, line, missed_at)
      select p_enterprise, n.id, n.customer_number, n.line, n.ended_at
      from jsonb_to_recordset(p_calls) as n (id uuid, customer_number text, line text, ended_at timestamptz, missed boolean, consult boolean)
      where n.missed and n.ended_at is not null and n.customer_number is not null and not n.consult
      on conflict do nothing;
  end if;
  if jsonb_path_exists(p_calls, '$[*] ? (@.answered_at != null && @.direction != "internal")')
      and exists (select from missed_calls where enterprise_number = p_enterprise and closed_at is null) then
    update missed_calls m set closed_at = n.answered_at, closed_how = case n.direction when 'in' then 'got_through' else 'called_back' end,
        closed_by = coalesce(n.answered_by, n.initiator), closed_by_call = n.id
      from jsonb_to_recordset(p_calls) as n (id uuid, customer_number text, direction text, answered_at timestamptz, answered_by text, initiator text)
      where m.enterprise_number = p_enterprise and m.customer_number = n.customer_number and m.closed_at is null
        and n.direction <> 'internal' and n.answered_at >= m.missed_at;
    get diagnostics closed = row_count;
  end if;

  -- A popup that could not be shown while it rang has lost its point once the call is over.
  if jsonb_path_exists(p_calls, '$[*].ended_at ? (@ != null)') then
    -- What was taken for missed and turns out to be answered (completed from CDR, or it came back) was never missed.
    if jsonb_path_exists(p_calls, '$[*] ? (@.gap == true)') then
      delete from missed_calls m using jsonb_to_recordset(p_calls) as n (id uuid, ended_at timestamptz, missed boolean)
        where m.enterprise_number = p_enterprise and m.call_id = n.id and n.ended_at is not null and not n.missed;
    end if;
    update deliveries d set state = 'dropped', finished_at = now(), last_error = 'the call was over before the popup could be shown'
      from jsonb_to_recordset(p_calls) as n (id uuid, ended_at timestamptz)
      where n.ended_at is not null and d.enterprise_number = p_enterprise and d.call_id = n.id
        and d.kind = 'popup' and d.state = 'waiting' and d.attempts > 0;
  end if;
  return closed;
end $$;

-- The feed's way: refused without the lease on the PBX.
create or replace function record_changes(p_enterprise text, p_pbx text, p_owner text, p_epoch bigint, p_calls jsonb, p_deliveries jsonb)
returns int language plpgsql as $$
begin
  perform set_config('vochid.enterprise', p_enterprise, true);
  perform 1 from leases
    where enterprise_number = p_enterprise and pbx = p_pbx and owner = p_owner and epoch = p_epoch and expires_at > now()
    for share;
  if not found then
    raise exception 'lease lost' using errcode = 'VL001';
  end if;
  return store_changes(p_enterprise, p_pbx, p_calls, p_deliveries);
end $$;

-- The way of what CDR tells: never over a call that lives or was seen whole. What was missed then may have been called back since.
create function backfill_calls(p_enterprise text, p_pbx text, p_calls jsonb, p_deliveries jsonb)
returns int language plpgsql as $$
declare
  fit jsonb;
begin
  perform set_config('vochid.enterprise', p_enterprise, true);
  perform pg_advisory_xact_lock(hashtextextended('backfill ' || p_enterprise || ' ' || p_pbx, 0));
  select coalesce(jsonb_agg(n.call), '[]') into fit from jsonb_array_elements(p_calls) as n (call)
    where not exists (select from calls c where c.enterprise_number = p_enterprise and c.id = (n.call ->> 'id')::uuid
      and (c.ended_at is null or not c.gap));
  perform store_changes(p_enterprise, p_pbx, fit,
    coalesce((select jsonb_agg(d.value) from jsonb_array_elements(p_deliveries) as d (value)
      where exists (select from jsonb_array_elements(fit) as f (call) where f.call ->> 'id' = d.value ->> 'call_id')), '[]'));
  update missed_calls m set closed_at = c.answered_at, closed_how = case c.direction when 'in' then 'got_through' else 'called_back' end,
      closed_by = coalesce(c.answered_by, c.initiator), closed_by_call = c.id
    from (select distinct on (m.call_id) m.call_id as missed_id, c.* from missed_calls m join calls c on c.enterprise_number = p_enterprise
            and c.customer_number = m.customer_number and c.started_at >= m.missed_at - interval '1 day'
            and c.answered_at >= m.missed_at and c.direction <> 'internal'
          where m.enterprise_number = p_enterprise and m.closed_at is null
            and m.call_id in (select (f.call ->> 'id')::uuid from jsonb_array_elements(fit) as f (call))
          order by m.call_id, c.answered_at) c
    where m.enterprise_number = p_enterprise and m.call_id = c.missed_id;
  return jsonb_array_length(fit);
end $$;

do $$
declare
  routine regprocedure;
begin
  for routine in select p.oid::regprocedure from pg_proc p
    where p.pronamespace = 'public'::regnamespace and p.proname in ('keep_traces', 'store_changes', 'backfill_calls')
  loop
    execute format('revoke execute on function %s from public', routine);
    execute format('grant execute on function %s to vochid_app', routine);
  end loop;
end $$;
