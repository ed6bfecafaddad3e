-- Calls that were asked for: reserved before anything is dialled, dialled at most once, followed to their end.
create table originate_requests (
  enterprise_number text not null,
  id uuid not null,
  pbx text not null,
  extension text not null,
  phone text not null,
  line text,
  source text not null,                  -- the integration whose click it was, or api
  idempotency_key text,
  state text not null check (state in
    ('reserved', 'sent', 'manager_answered', 'customer_answered', 'ended', 'refused', 'failed', 'unknown')),
  code text,                             -- why, for programs
  reason text,                           -- why, for people
  channel_id text not null,              -- chosen by us: ActionID, and Uniqueid of the first channel
  other_channel_id text not null,        -- Uniqueid of a Local channel's other half
  call_id uuid,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  primary key (enterprise_number, id)
);
create unique index originate_requests_key on originate_requests (enterprise_number, idempotency_key) where idempotency_key is not null;
create index originate_requests_newest on originate_requests (enterprise_number, created_at desc);
create index originate_requests_open on originate_requests (enterprise_number, pbx)
  where state in ('reserved', 'unknown', 'sent', 'manager_answered', 'customer_answered');

-- What a PBX without a link posted: the same event twice is told once.
create table posted_events (
  enterprise_number text not null,
  uniqueid text not null,
  event_type text not null,
  created_at timestamptz not null default now(),
  primary key (enterprise_number, uniqueid, event_type)
);
create index posted_events_age on posted_events (created_at);

-- What managers say of themselves in their CRM.
create table user_statuses (
  enterprise_number text not null references enterprises (number) on delete cascade,
  integration text not null,
  user_id text not null,
  status text not null check (status in ('free', 'busy', 'dinner', 'break')),
  updated_at timestamptz not null default now(),
  primary key (enterprise_number, integration, user_id)
);

do $$
declare
  name text;
begin
  foreach name in array array['originate_requests', 'posted_events', 'user_statuses'] loop
    execute format('alter table %I enable row level security', name);
    execute format('create policy tenant on %I using (enterprise_number = tenant()) with check (enterprise_number = tenant())', name);
    execute format('grant select, insert, update, delete on %I to vochid_app', name);
  end loop;
end $$;

-- Decides what must be counted and reserves the row, one click of an enterprise after the other. Gives the new row (p_request's id, state
-- reserved or refused) or the former one that this click repeats. p_request has a `code` already when it is refused for other reasons.
-- Refused rows are kept for people to see, at most p_limits.refusals_per_minute of them: a flood of refusals must not fill the disk.
create function reserve_originate(p_enterprise text, p_request jsonb, p_limits jsonb) returns setof originate_requests
language plpgsql as $$
declare
  asked originate_requests;
  former originate_requests;
  day_began timestamptz;
  open_since timestamptz;
begin
  perform set_config('vochid.enterprise', p_enterprise, true);
  perform pg_advisory_xact_lock(hashtextextended(p_enterprise, 11));
  asked := jsonb_populate_record(null::originate_requests, p_request);
  asked.enterprise_number := p_enterprise;
  asked.created_at := clock_timestamp();
  asked.updated_at := asked.created_at;

  if asked.code is null and asked.idempotency_key is not null then
    select * into former from originate_requests r where r.enterprise_number = p_enterprise and r.idempotency_key = asked.idempotency_key;
    if found then
      return next former;
      return;
    end if;
  end if;
  if asked.code is null then
    select * into former from originate_requests r
      where r.enterprise_number = p_enterprise and r.created_at > asked.created_at - make_interval(secs => (p_limits ->> 'same_click_s')::float8)
        and r.extension = asked.extension and r.phone = asked.phone and r.state <> 'refused'
        and r.code is distinct from 'pbx_link_down'  -- nothing was dialled
      order by r.created_at desc limit 1;
    if found then
      return next former;
      return;
    end if;
    day_began := (p_limits ->> 'day_began')::timestamptz;
    open_since := asked.created_at - make_interval(secs => (p_limits ->> 'open_s')::float8);
    select case
        when count(*) filter (where r.extension = asked.extension and r.created_at > asked.created_at - interval '1 minute')
          >= (p_limits ->> 'per_extension_per_minute')::int then 'per_extension_per_minute'
        when count(*) filter (where r.state in ('reserved', 'unknown', 'sent', 'manager_answered', 'customer_answered') and r.created_at > open_since)
          >= (p_limits ->> 'concurrent')::int then 'concurrent'
        when count(*) filter (where r.created_at >= day_began) >= (p_limits ->> 'per_day')::int then 'per_day'
      end
      into asked.code from originate_requests r
      where r.enterprise_number = p_enterprise and r.created_at >= least(day_began, open_since, asked.created_at - interval '1 minute')
        and r.state <> 'refused';
  end if;

  if asked.code is null then
    asked.state := 'reserved';
    insert into originate_requests select asked.*;
  else
    asked.state := 'refused';
    asked.idempotency_key := null;
    asked.reason := coalesce(asked.reason, p_limits -> 'words' ->> asked.code);
    if (select count(*) from originate_requests r where r.enterprise_number = p_enterprise and r.state = 'refused'
          and r.created_at > asked.created_at - interval '1 minute') < (p_limits ->> 'refusals_per_minute')::int then
      insert into originate_requests select asked.*;
    end if;
  end if;
  return next asked;
end $$;

-- A line in the log, unless this minute has p_most of them already: what a stranger can cause must not fill the disk.
create function log_originate(p_enterprise text, p_integration text, p_request jsonb, p_response jsonb, p_status text, p_error text, p_most int)
returns void language plpgsql as $$
begin
  perform set_config('vochid.enterprise', p_enterprise, true);
  if (select count(*) from integration_logs where enterprise_number = p_enterprise and created_at > now() - interval '1 minute'
        and event_type = 'make_call') < p_most then
    insert into integration_logs (enterprise_number, integration_type, event_type, request_data, response_data, status, error_message)
      values (p_enterprise, p_integration, 'make_call', p_request, p_response, p_status, p_error);
  end if;
end $$;

-- A PBX without a link has no reader who holds its lease: it is held for this one transaction, which record_changes then finds.
create function record_posted(p_enterprise text, p_pbx text, p_owner text, p_uniqueid text, p_event_type text, p_calls jsonb, p_deliveries jsonb)
returns void language plpgsql as $$
declare
  held bigint;
begin
  perform set_config('vochid.enterprise', p_enterprise, true);
  insert into posted_events (enterprise_number, uniqueid, event_type) values (p_enterprise, p_uniqueid, p_event_type);
  if jsonb_array_length(p_calls) = 0 then
    return;
  end if;
  insert into leases as l (enterprise_number, pbx, owner, epoch, expires_at)
    values (p_enterprise, p_pbx, p_owner, 1, now() + interval '1 minute')
    on conflict (enterprise_number, pbx) do update set owner = excluded.owner, epoch = l.epoch + 1, expires_at = excluded.expires_at
    returning epoch into held;
  perform record_changes(p_enterprise, p_pbx, p_owner, held, p_calls, p_deliveries);
  update leases set expires_at = '-infinity' where enterprise_number = p_enterprise and pbx = p_pbx;
end $$;

-- Posted calls whose hangup never came: of all tenants, oldest first.
create function stale_posted_calls(p_after_s double precision) returns table (enterprise_number text, id uuid, linkedid text)
language sql stable security definer set search_path = public as $$
  select c.enterprise_number, c.id, c.linkedid from calls c
    where c.ended_at is null and c.updated_at < now() - make_interval(secs => p_after_s)
      and exists (select from posted_events p where p.enterprise_number = c.enterprise_number and p.uniqueid = c.linkedid)
    order by c.updated_at limit 1000
$$;

create function forget_originates(p_days int, p_posted_days int) returns void
language sql security definer set search_path = public as $$
  delete from originate_requests where created_at < now() - make_interval(days => p_days);
  delete from posted_events where created_at < now() - make_interval(days => p_posted_days);
$$;

do $$
declare
  routine regprocedure;
begin
  for routine in select p.oid::regprocedure from pg_proc p where p.pronamespace = 'public'::regnamespace
      and p.proname in ('reserve_originate', 'log_originate', 'record_posted', 'stale_posted_calls', 'forget_originates') loop
    execute format('revoke execute on function %s from public', routine);
    execute format('grant execute on function %s to vochid_app', routine);
  end loop;
end $$;
