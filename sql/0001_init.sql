-- The spine: tenants, calls, the outbox, logs, leases, tokens.
-- Applied by the owner; the daemon works as role vochid_app, which owns nothing and is held by row-level security.
-- The tenant is `vochid.enterprise`, set for one transaction at a time.

create function tenant() returns text language sql stable as
  $$ select nullif(current_setting('vochid.enterprise', true), '') $$;

-- Tenants ---------------------------------------------------------------------------------------------------------

create table enterprises (
  number text primary key check (number ~ '^[0-9A-Za-z_-]{1,32}$'),
  name text not null,
  settings jsonb not null default '{}',             -- the document without what has a column or table of its own
  integrations_config jsonb not null default '{}',  -- by CRM name; secrets sealed inside
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);

create table user_internal_phones (
  enterprise_number text not null references enterprises (number) on delete cascade,
  number text not null,
  owner text not null default '',
  position int not null default 0,
  primary key (enterprise_number, number)
);

-- A plain SQL UPDATE tells every daemon, once per integration that changed; integration_type null: the rest of the document.
create function notify_settings() returns trigger language plpgsql as $$
declare
  subject text := coalesce(new.number, old.number);
  integration text;
begin
  for integration in
    select key from jsonb_each(coalesce(old.integrations_config, '{}') || coalesce(new.integrations_config, '{}'))
    where old.integrations_config -> key is distinct from new.integrations_config -> key
  loop
    perform pg_notify('vochid_settings', json_build_object('enterprise_number', subject, 'integration_type', integration)::text);
  end loop;
  if tg_op <> 'UPDATE' or (old.name, old.settings) is distinct from (new.name, new.settings) then
    perform pg_notify('vochid_settings', json_build_object('enterprise_number', subject, 'integration_type', null)::text);
  end if;
  return null;
end $$;
create trigger enterprises_notify after insert or update or delete on enterprises
  for each row execute function notify_settings();

create function notify_phones() returns trigger language plpgsql as $$
begin
  perform pg_notify('vochid_settings',
    json_build_object('enterprise_number', coalesce(new.enterprise_number, old.enterprise_number), 'integration_type', null)::text);
  return null;
end $$;
create trigger user_internal_phones_notify after insert or update or delete on user_internal_phones
  for each row execute function notify_phones();

-- Who reads which PBX ---------------------------------------------------------------------------------------------

create table leases (
  enterprise_number text not null,
  pbx text not null,
  owner text not null,
  epoch bigint not null,
  expires_at timestamptz not null,
  primary key (enterprise_number, pbx)
);

-- Calls -----------------------------------------------------------------------------------------------------------

create table calls (
  enterprise_number text not null,
  id uuid not null,
  pbx text not null,
  linkedid text not null,
  direction text not null check (direction in ('in', 'out', 'internal')),
  customer_number text,
  customer_name text,
  line text,
  started_at timestamptz not null,
  answered_at timestamptz,
  ended_at timestamptz,
  wait_seconds double precision not null,
  talk_seconds double precision not null,
  result text check (result in
    ('answered', 'voicemail', 'cancelled', 'no_answer', 'busy', 'rejected', 'unavailable', 'interrupted')),
  missed boolean not null,
  rang text[] not null,
  answered_by text,
  last_talked text,
  initiator text,
  transfers jsonb not null,
  queue text,
  click_to_call boolean not null,
  consult boolean not null,
  recordings text[] not null,
  gap boolean not null,
  updated_at timestamptz not null default now(),
  primary key (enterprise_number, id)
);
create index calls_newest on calls (enterprise_number, started_at desc, id desc);
create index calls_open on calls (enterprise_number, pbx) where ended_at is null;

create table legs (
  enterprise_number text not null,
  call_id uuid not null,
  position int not null,
  channel text not null,
  number text,
  kind text not null check (kind in ('customer', 'internal', 'external')),
  started_at timestamptz not null,
  answered_at timestamptz,
  ended_at timestamptz,
  cause int,
  primary key (enterprise_number, call_id, position),
  foreign key (enterprise_number, call_id) references calls (enterprise_number, id) on delete cascade
);

-- The outbox --------------------------------------------------------------------------------------------------------

create table deliveries (
  id bigint generated always as identity primary key,
  enterprise_number text not null,
  integration text not null,
  call_id uuid not null,                 -- with the integration: the lane, in which order is kept
  kind text not null,
  key text not null,                     -- the same thing is never stored twice
  priority int not null,
  payload jsonb not null,
  state text not null default 'waiting' check (state in
    ('waiting', 'sending', 'delivered', 'dead', 'discarded', 'dropped', 'observed')),
  attempts int not null default 0,
  uncertain boolean not null default false,  -- a former attempt may have arrived
  due_at timestamptz not null default now(),
  expires_at timestamptz,
  claimed_by text,
  claimed_until timestamptz,
  last_error text,
  created_at timestamptz not null default now(),
  finished_at timestamptz,
  unique (enterprise_number, integration, key)
);
create index deliveries_due on deliveries (enterprise_number, integration, priority, due_at, id) where state = 'waiting';
create index deliveries_lane on deliveries (enterprise_number, integration, call_id, id) where state in ('waiting', 'sending');
create index deliveries_claims on deliveries (claimed_until) where state = 'sending';
create index deliveries_expiring on deliveries (enterprise_number, integration, expires_at) where state = 'waiting' and expires_at is not null;
create index deliveries_newest on deliveries (enterprise_number, id desc);
create index deliveries_finished on deliveries (finished_at) where finished_at is not null;
-- A queue table lives on fresh statistics and small dead space.
alter table deliveries set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02, fillfactor = 80);

create table lane_memory (
  enterprise_number text not null,
  integration text not null,
  call_id uuid not null,
  memory jsonb not null,
  updated_at timestamptz not null default now(),
  primary key (enterprise_number, integration, call_id)
);

create table connections (
  enterprise_number text not null,
  integration text not null,
  state text not null check (state in ('ok', 'needs_reauth', 'paused', 'disabled')),
  reason text not null default '',
  tokens text,                            -- sealed; for CRMs whose credentials renew themselves
  since timestamptz not null default now(),
  primary key (enterprise_number, integration)
);

create table integration_logs (
  id bigint generated always as identity,
  enterprise_number text not null,
  integration_type text not null,
  event_type text not null,
  request_data jsonb not null,
  response_data jsonb not null,
  status text not null check (status in ('success', 'error')),
  error_message text,
  delivery_id bigint,
  created_at timestamptz not null default now(),
  primary key (id, created_at)
) partition by range (created_at);
create index integration_logs_newest on integration_logs (enterprise_number, created_at desc, id desc);
create table integration_logs_default partition of integration_logs default;

-- Tokens of the API -------------------------------------------------------------------------------------------------

create table api_tokens (
  id bigint generated always as identity primary key,
  enterprise_number text not null references enterprises (number) on delete cascade,
  name text not null,
  token_hash bytea not null unique,
  created_at timestamptz not null default now(),
  last_used_at timestamptz,
  revoked_at timestamptz
);

-- Walls -------------------------------------------------------------------------------------------------------------

do $$
declare
  name text;
  key text;
begin
  foreach name in array array['enterprises', 'user_internal_phones', 'calls', 'legs', 'deliveries', 'lane_memory',
                              'connections', 'integration_logs', 'api_tokens', 'leases']
  loop
    key := case name when 'enterprises' then 'number' else 'enterprise_number' end;
    execute format('alter table %I enable row level security', name);
    execute format('create policy tenant on %I using (%I = tenant()) with check (%I = tenant())', name, key, key);
    execute format('grant select, insert, update, delete on %I to vochid_app', name);
  end loop;
end $$;
grant usage on all sequences in schema public to vochid_app;

-- The way of a change: calls and what is to be told about them, in one go ----------------------------------------------

create function record_changes(p_enterprise text, p_pbx text, p_owner text, p_epoch bigint, p_calls jsonb, p_deliveries jsonb)
returns int language plpgsql as $$
declare
  told int := 0;
begin
  perform set_config('vochid.enterprise', p_enterprise, true);
  perform 1 from leases
    where enterprise_number = p_enterprise and pbx = p_pbx and owner = p_owner and epoch = p_epoch and expires_at > now()
    for share;
  if not found then
    raise exception 'lease lost' using errcode = 'VL001';
  end if;

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
      channel = excluded.channel, number = excluded.number, kind = excluded.kind, answered_at = excluded.answered_at,
      ended_at = excluded.ended_at, cause = excluded.cause;

  if jsonb_array_length(p_deliveries) > 0 then
    insert into deliveries (enterprise_number, integration, call_id, kind, key, priority, payload, expires_at)
      select p_enterprise, n.integration, n.call_id, n.kind, n.key, n.priority, n.payload, now() + make_interval(secs => n.expires_s)
      from jsonb_to_recordset(p_deliveries) as n (integration text, call_id uuid, kind text, key text, priority int,
        payload jsonb, expires_s double precision)
      on conflict (enterprise_number, integration, key) do nothing;
    get diagnostics told = row_count;
  end if;

  -- A popup that could not be shown while it rang has lost its point once the call is over.
  if jsonb_path_exists(p_calls, '$[*].ended_at ? (@ != null)') then
    update deliveries d set state = 'dropped', finished_at = now(), last_error = 'the call was over before the popup could be shown'
      from jsonb_to_recordset(p_calls) as n (id uuid, ended_at timestamptz)
      where n.ended_at is not null and d.enterprise_number = p_enterprise and d.call_id = n.id
        and d.kind = 'popup' and d.state = 'waiting' and d.attempts > 0;
  end if;
  return told;
end $$;

-- Claims: a lane's head only, popups before journals, nothing twice -----------------------------------------------------

--
-- p_repeatable: the CRM recognises these kinds when they are sent again, so that a claim which a crash of the database forgets
-- does no harm: its commit need not wait for the disk. What is claimed was committed durably before, in any case.
-- p_fresh: only what was never tried, or only what was; null: either.

create function claim_deliveries(p_enterprise text, p_integration text, p_owner text, p_kinds text[], p_limit int, p_claim_s double precision,
  p_repeatable boolean, p_fresh boolean)
returns setof deliveries language plpgsql as $$
begin
  perform set_config('vochid.enterprise', p_enterprise, true);
  if p_repeatable then
    set local synchronous_commit = off;
  end if;
  update deliveries set state = 'dropped', finished_at = now(), last_error = coalesce(last_error || '; ', '') || 'too late to be shown'
    where enterprise_number = p_enterprise and integration = p_integration and state = 'waiting' and expires_at < now();
  return query
    with picked as (
      select d.id from deliveries d
      where d.enterprise_number = p_enterprise and d.integration = p_integration and d.state = 'waiting'
        and d.due_at <= now() and d.kind = any (p_kinds)
        and (p_fresh is null or p_fresh = (d.attempts = 0 and not d.uncertain))
        and not exists (
          select from deliveries earlier
          where earlier.enterprise_number = d.enterprise_number and earlier.integration = d.integration
            and earlier.call_id = d.call_id and earlier.state in ('waiting', 'sending') and earlier.id < d.id)
      order by d.priority, d.due_at, d.id
      limit p_limit
      for update skip locked)
    update deliveries d
      set state = 'sending', attempts = d.attempts + 1, claimed_by = p_owner, claimed_until = now() + make_interval(secs => p_claim_s)
      from picked where d.id = picked.id
      returning d.*;
end $$;

-- What came of attempts. `state` waiting: again at due_in_s; counted false: the attempt is given back.
create function settle_deliveries(p_enterprise text, p_integration text, p_owner text, p_results jsonb, p_logs jsonb)
returns int language plpgsql as $$
declare
  settled int;
begin
  perform set_config('vochid.enterprise', p_enterprise, true);
  update deliveries d set
      state = r.state, last_error = r.error, uncertain = r.uncertain, claimed_by = null, claimed_until = null,
      attempts = d.attempts - case when r.counted then 0 else 1 end,
      due_at = now() + make_interval(secs => coalesce(r.due_in_s, 0)),
      finished_at = case when r.state = 'waiting' then null else now() end
    from jsonb_to_recordset(p_results) as r (id bigint, state text, error text, uncertain boolean, counted boolean, due_in_s double precision)
    where d.id = r.id and d.state = 'sending' and d.claimed_by = p_owner;
  get diagnostics settled = row_count;
  insert into lane_memory (enterprise_number, integration, call_id, memory)
    select p_enterprise, p_integration, r.call_id, r.memory
    from jsonb_to_recordset(p_results) as r (call_id uuid, memory jsonb) where r.memory is not null
    on conflict (enterprise_number, integration, call_id) do update
      set memory = lane_memory.memory || excluded.memory, updated_at = now();
  insert into integration_logs (enterprise_number, integration_type, event_type, request_data, response_data, status, error_message, delivery_id)
    select p_enterprise, p_integration, l.event_type, l.request_data, l.response_data, l.status, l.error_message, l.delivery_id
    from jsonb_to_recordset(p_logs) as l (event_type text, request_data jsonb, response_data jsonb, status text, error_message text, delivery_id bigint);
  return settled;
end $$;

-- What must see all tenants, and nothing more ------------------------------------------------------------------------------

create function all_enterprises() returns setof enterprises language sql stable security definer set search_path = public as
  $$ select * from enterprises order by number $$;

create function all_phones() returns setof user_internal_phones language sql stable security definer set search_path = public as
  $$ select * from user_internal_phones order by enterprise_number, position, number $$;

-- Connections with something due: one index probe each, however long their queues are.
create function due_connections() returns table (enterprise_number text, integration text)
language sql stable security definer set search_path = public as $$
  with recursive lane as (
    (select d.enterprise_number, d.integration from deliveries d where d.state = 'waiting'
      order by d.enterprise_number, d.integration limit 1)
    union all
    select following.* from lane, lateral (
      select d.enterprise_number, d.integration from deliveries d
      where d.state = 'waiting' and (d.enterprise_number, d.integration) > (lane.enterprise_number, lane.integration)
      order by d.enterprise_number, d.integration limit 1) following)
  select * from lane where exists (
    select from deliveries d where d.enterprise_number = lane.enterprise_number and d.integration = lane.integration
      and d.state = 'waiting' and d.due_at <= now())
$$;

-- A claim that outlived its owner: the attempt may have arrived.
create function release_expired_claims() returns int language plpgsql security definer set search_path = public as $$
declare
  released int;
begin
  update deliveries set state = 'waiting', uncertain = true, claimed_by = null, claimed_until = null, due_at = now(),
      last_error = 'the daemon stopped in mid-delivery'
    where state = 'sending' and claimed_until < now();
  get diagnostics released = row_count;
  return released;
end $$;

create function take_lease(p_enterprise text, p_pbx text, p_owner text, p_ttl_s double precision) returns bigint
language plpgsql security definer set search_path = public as $$
declare
  got bigint;
begin
  insert into leases as l (enterprise_number, pbx, owner, epoch, expires_at)
    values (p_enterprise, p_pbx, p_owner, 1, now() + make_interval(secs => p_ttl_s))
    on conflict (enterprise_number, pbx) do update
      set owner = excluded.owner, epoch = l.epoch + 1, expires_at = excluded.expires_at
      where l.expires_at < now() or l.owner = excluded.owner
    returning epoch into got;
  return got;
end $$;

create function renew_leases(p_owner text, p_ttl_s double precision) returns table (enterprise_number text, pbx text, epoch bigint)
language sql security definer set search_path = public as $$
  update leases l set expires_at = now() + make_interval(secs => p_ttl_s)
    where l.owner = p_owner and l.expires_at > now()
    returning l.enterprise_number, l.pbx, l.epoch
$$;

create function drop_leases(p_owner text) returns void language sql security definer set search_path = public as
  $$ update leases set expires_at = '-infinity' where owner = p_owner $$;

create function drop_lease(p_owner text, p_enterprise text, p_pbx text) returns void
language sql security definer set search_path = public as
  $$ update leases set expires_at = '-infinity' where owner = p_owner and enterprise_number = p_enterprise and pbx = p_pbx $$;

create function find_token(p_hash bytea) returns text language sql security definer set search_path = public as $$
  update api_tokens set last_used_at = now() where token_hash = p_hash and revoked_at is null returning enterprise_number
$$;

-- Retention: partitions of the log for a week ahead, gone after 90 days; what was told is kept 30 days.
create function keep_house(p_log_days int, p_delivery_days int) returns void
language plpgsql security definer set search_path = public as $$
declare
  day date;
  part text;
begin
  for day in select generate_series(current_date, current_date + 7, interval '1 day')::date loop
    part := 'integration_logs_' || to_char(day, 'YYYYMMDD');
    if to_regclass(part) is null and not exists (
        select from integration_logs_default where created_at >= day and created_at < day + 1) then
      execute format('create table %I partition of integration_logs for values from (%L) to (%L)', part, day, day + 1);
    end if;
  end loop;
  for part in
    select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'integration_logs'::regclass and c.relname ~ '^integration_logs_[0-9]{8}$'
      and to_date(right(c.relname, 8), 'YYYYMMDD') < current_date - p_log_days
  loop
    execute format('drop table %I', part);
  end loop;
  delete from integration_logs_default where created_at < now() - make_interval(days => p_log_days);
  delete from deliveries where finished_at < now() - make_interval(days => p_delivery_days) and state <> 'dead';
  delete from lane_memory where updated_at < now() - make_interval(days => p_delivery_days);
end $$;

create function delivery_backlog() returns table (integration text, state text, count bigint, oldest_s double precision)
language sql stable security definer set search_path = public as $$
  select d.integration, d.state, count(*), extract(epoch from now() - min(d.created_at))
  from deliveries d where d.state in ('waiting', 'sending') group by 1, 2
$$;

do $$
declare
  routine regprocedure;
begin
  for routine in select p.oid::regprocedure from pg_proc p where p.pronamespace = 'public'::regnamespace loop
    execute format('revoke execute on function %s from public', routine);
    execute format('grant execute on function %s to vochid_app', routine);
  end loop;
end $$;
