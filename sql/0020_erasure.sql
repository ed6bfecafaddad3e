-- What is forgotten: by phone number on request, and by age as each enterprise sets it; and keyed hashes under a new key.

alter table calls add column erased_at timestamptz;  -- the customer asked to be forgotten: the call counts, and says nothing of them any more

-- Not onto a call that was erased: the PBX's CDR still knows the file's name.
create or replace function attach_recording(p_enterprise text, p_call uuid, p_name text, p_deliveries jsonb) returns boolean language plpgsql as $$
declare
  names text[];
begin
  perform set_config('vochid.enterprise', p_enterprise, true);
  update calls c set recordings = array_append(c.recordings, p_name), updated_at = now()
    where c.enterprise_number = p_enterprise and c.id = p_call and c.erased_at is null and not p_name = any (c.recordings) returning c.recordings into names;
  if not found then
    return false;
  end if;
  update deliveries d set payload = jsonb_set(d.payload, '{call,recordings}', to_jsonb(names))
    where d.enterprise_number = p_enterprise and d.call_id = p_call and d.state = 'waiting' and d.kind in ('journal', 'recording');
  insert into deliveries (enterprise_number, integration, call_id, kind, key, priority, payload, expires_at)
    select p_enterprise, n.integration, n.call_id, n.kind, n.key, n.priority, n.payload, now() + make_interval(secs => n.expires_s)
    from jsonb_to_recordset(p_deliveries) as n (integration text, call_id uuid, kind text, key text, priority int,
      payload jsonb, expires_s double precision)
    on conflict (enterprise_number, integration, key) do nothing;
  return true;
end $$;

-- Sums of days outlive what they were counted from: what goes by age leaves them as they are.
create function is_keeping_house() returns boolean language sql stable as $$ select coalesce(current_setting('vochid.keeping', true), '') = 'on' $$;

create or replace function unsum(p_enterprise text, p_part text, p_at timestamptz) returns void language plpgsql as $$
begin
  if is_keeping_house() then
    return;
  end if;
  perform pg_advisory_xact_lock_shared(hashtextextended('reports ' || p_part || ' ' || p_enterprise, 0));
  delete from report_days where enterprise_number = p_enterprise and part = p_part and since <= p_at and until > p_at
    and day between (p_at at time zone 'UTC')::date - 1 and (p_at at time zone 'UTC')::date + 1;
end $$;

create or replace function keep_house(p_log_days int, p_delivery_days int) returns void
language plpgsql security definer set search_path = public as $$
declare
  day date;
  part text;
begin
  perform set_config('vochid.keeping', 'on', true);
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
  perform set_config('vochid.keeping', '', true);
end $$;

-- One enterprise's own retention, at most p_most rows of each kind; gives how many went. Null: nothing of that kind goes by age.
create function keep_enterprise(p_enterprise text, p_calls int, p_tickets int, p_deliveries int, p_logs int, p_traces int, p_most int)
returns table (what text, gone bigint) language plpgsql as $$
begin
  perform set_config('vochid.enterprise', p_enterprise, true);
  perform set_config('vochid.keeping', 'on', true);
  return query
    with old as (select id from calls where enterprise_number = p_enterprise and started_at < now() - make_interval(days => p_calls)
                   and ended_at is not null order by started_at limit p_most),
    gone as (delete from calls c using old where c.enterprise_number = p_enterprise and c.id = old.id returning 1)
    select 'calls', count(*) from gone;
  return query
    with old as (select id from support_tickets where enterprise_number = p_enterprise and status = 'closed'
                   and updated_at < now() - make_interval(days => p_tickets) order by updated_at limit p_most),
    gone as (delete from support_tickets t using old where t.enterprise_number = p_enterprise and t.id = old.id returning 1)
    select 'tickets', count(*) from gone;
  return query
    with old as (select id from deliveries where enterprise_number = p_enterprise and finished_at < now() - make_interval(days => p_deliveries)
                   and state <> 'dead' order by id limit p_most),
    gone as (delete from deliveries d using old where d.enterprise_number = p_enterprise and d.id = old.id returning 1)
    select 'deliveries', count(*) from gone;
  return query
    with old as (select id, created_at from integration_logs where enterprise_number = p_enterprise
                   and created_at < now() - make_interval(days => p_logs) order by created_at, id limit p_most),
    gone as (delete from integration_logs l using old where l.enterprise_number = p_enterprise and l.created_at = old.created_at and l.id = old.id returning 1)
    select 'logs', count(*) from gone;
  return query
    with gone as (delete from call_traces where enterprise_number = p_enterprise and stored_at < now() - make_interval(days => p_traces) returning 1)
    select 'traces', count(*) from gone;
  perform set_config('vochid.keeping', '', true);
end $$;

-- Of enterprises that were removed, whose documents say nothing any more.
create function keep_removed(p_days int, p_most int) returns bigint language plpgsql security definer set search_path = public as $$
declare
  went bigint;
begin
  perform set_config('vochid.keeping', 'on', true);
  with old as (select enterprise_number, id from calls c where started_at < now() - make_interval(days => p_days)
                 and not exists (select from enterprises e where e.number = c.enterprise_number) limit p_most),
  gone as (delete from calls c using old where c.enterprise_number = old.enterprise_number and c.id = old.id returning 1)
  select count(*) into went from gone;
  delete from support_tickets t where updated_at < now() - make_interval(days => p_days)
    and not exists (select from enterprises e where e.number = t.enterprise_number);
  perform set_config('vochid.keeping', '', true);
  return went;
end $$;

-- Inbound tokens are found by keyed hashes. These two carry one over to another key, for whoever knows the token itself.
create function rehash_inbound(p_old bytea, p_new bytea) returns boolean language plpgsql volatile security definer set search_path = public as $$
begin
  if exists (select from inbound_tokens where token_hash = p_new) then
    delete from inbound_tokens where token_hash = p_old;
    return false;
  end if;
  update inbound_tokens set token_hash = p_new where token_hash = p_old;
  return found;
end $$;

create function inbound_hashes() returns table (token_hash bytea, enterprise_number text, integration text, purpose text, expires_at timestamptz)
language sql stable security definer set search_path = public as
  $$ select t.token_hash, t.enterprise_number, t.integration, t.purpose, t.expires_at from inbound_tokens t $$;

-- Which of five counters of one person, or of one range of numbers, is full; null: none. What was refused is not counted.
create function full_counter(p_enterprise text, p_extension text, p_range text, p_phone text, p_counters jsonb, p_day_began timestamptz,
  p_open_since timestamptz) returns text language sql stable as $$
  select case
    when count(*) filter (where r.created_at > clock_timestamp() - interval '1 minute') >= (p_counters ->> 'per_minute')::int then 'per_minute'
    when count(*) filter (where r.state in ('reserved', 'unknown', 'sent', 'manager_answered', 'customer_answered') and r.created_at > p_open_since)
      >= (p_counters ->> 'concurrent')::int then 'concurrent'
    when count(*) filter (where r.phone = p_phone and r.created_at > clock_timestamp() - interval '1 hour')
      >= (p_counters ->> 'same_number_per_hour')::int then 'same_number_per_hour'
    when count(*) filter (where r.created_at >= p_day_began) >= (p_counters ->> 'per_day')::int then 'per_day'
    when coalesce(sum(greatest(c.talk_seconds, extract(epoch from coalesce(c.ended_at, now()) - c.answered_at))) filter (where r.created_at >= p_day_began), 0)
      >= (p_counters ->> 'talk_minutes_per_day')::int * 60 then 'talk_minutes_per_day'
  end
  from originate_requests r left join calls c on c.enterprise_number = r.enterprise_number and c.id = r.call_id
  where r.enterprise_number = p_enterprise and r.created_at >= least(p_day_began, p_open_since, clock_timestamp() - interval '1 hour') and r.state <> 'refused'
    and (p_extension is null or r.extension = p_extension) and (p_range is null or starts_with(r.phone, p_range))
$$;

create or replace function reserve_originate(p_enterprise text, p_request jsonb, p_limits jsonb) returns setof originate_requests
language plpgsql set plan_cache_mode = force_generic_plan as $$
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
    if asked.code is null and p_limits -> 'per_person' is not null then
      asked.code := 'per_person_' || full_counter(p_enterprise, asked.extension, null, asked.phone, p_limits -> 'per_person', day_began, open_since);
    end if;
    if asked.code is null and p_limits ->> 'range' is not null then
      asked.code := 'abroad_' || full_counter(p_enterprise, null, p_limits ->> 'range', asked.phone, p_limits -> 'abroad', day_began, open_since);
    end if;
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

do $$
declare
  routine regprocedure;
begin
  for routine in select p.oid::regprocedure from pg_proc p where p.pronamespace = 'public'::regnamespace
      and p.proname in ('is_keeping_house', 'keep_enterprise', 'keep_removed', 'rehash_inbound', 'inbound_hashes', 'full_counter',
        'forget_amocrm_tokens', 'take_consent') loop
    execute format('revoke execute on function %s from public', routine);
    execute format('grant execute on function %s to vochid_app', routine);
  end loop;
end $$;
