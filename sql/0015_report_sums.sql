-- Reports over months without reading every call: figures of whole local days, kept once a day is over.
--
-- A day here is the enterprise's own, from local midnight to local midnight, so that it has 23 or 25 hours where clocks change and any offset is right.
-- What is kept of a day counts only while its row in report_days stands: whatever changes a day that is over takes that row away, in its own
-- transaction, and the day is counted from its calls again, at once by whoever asks and for good by the next round of sum_days.

create table report_days (
  enterprise_number text not null,
  part text not null check (part in ('calls', 'callback', 'told')),
  day date not null,
  zone text not null,
  since timestamptz not null,
  until timestamptz not null,
  primary key (enterprise_number, part, day)
);

-- One line's day. Arrays of the same name's plural hold pairs by position: steps of a waiting time and how many calls waited so.
create table report_calls (
  enterprise_number text not null,
  day date not null,
  line text not null,                    -- '': all lines together; else '=' and the line, '=' alone for calls without one
  answered int[] not null,               -- incoming calls by the hour that the local clock showed, 24 of them
  missed int[] not null,
  outgoing int[] not null,
  internal int[] not null,
  talk_seconds double precision not null,
  internal_talk_seconds double precision not null,
  talked int not null,                   -- calls with any talk
  within_20_s int not null,              -- incoming, answered within 20 s
  waited_steps smallint[] not null,      -- incoming and answered
  waited int[] not null,
  lost_steps smallint[] not null,        -- incoming and missed
  lost int[] not null,
  extensions text[] not null,            -- whose figures follow
  rang int[] not null,
  took int[] not null,
  placed int[] not null,
  talk double precision[] not null,
  primary key (enterprise_number, day, line)
);

-- Missed calls of a day, and how long it took until somebody talked with those customers, within seven days.
create table report_callbacks (
  enterprise_number text not null,
  day date not null,
  line text not null,                    -- as above, but never all together
  missed int not null,
  steps smallint[] not null,
  calls int[] not null,                  -- missed calls whose customers were talked with after that time
  primary key (enterprise_number, day, line)
);

-- Deliveries planned on a day by what became of them; attempts made on it stand under the kind '' and the states 'attempt' and 'failure'.
create table report_told (
  enterprise_number text not null,
  day date not null,
  integration text not null,
  kind text not null,
  state text not null,
  deliveries int not null,
  steps smallint[] not null,             -- of delivered ones: from the commit to the CRM's answer
  counts int[] not null,
  primary key (enterprise_number, day, integration, kind, state)
);

do $$
declare
  name text;
begin
  foreach name in array array['report_days', 'report_calls', 'report_callbacks', 'report_told'] loop
    execute format('alter table %I enable row level security', name);
    execute format('create policy tenant on %I using (enterprise_number = tenant()) with check (enterprise_number = tenant())', name);
    execute format('grant select, insert, update, delete on %I to vochid_app', name);
  end loop;
end $$;

-- Seconds as a step of a scale on which each is 2 % longer than the one before: a percentile read from steps is within 1 % of the true one.
-- -350 stands for less than a millisecond.
create function step_of(p_seconds double precision) returns smallint language sql immutable parallel safe
  return greatest(-350, least(1200, round(ln(greatest(p_seconds, 1e-5)) / ln(1.02::double precision))))::smallint;

-- A day's figures, counted from its calls: a row per line and one for all; none for a day without calls.
create function count_calls(p_enterprise text, p_day date, p_since timestamptz, p_until timestamptz, p_zone text)
returns setof report_calls language sql stable as $$
  with told as materialized (
    select k.line, extract(hour from c.started_at at time zone p_zone)::int as hour, c.direction, c.missed, c.wait_seconds, c.talk_seconds, c.rang,
      c.answered_by, c.initiator
    from calls c cross join lateral (values (''), ('=' || coalesce(c.line, ''))) as k (line)
    where c.enterprise_number = p_enterprise and c.started_at >= p_since and c.started_at < p_until and c.ended_at is not null and not c.consult),
  lines as (
    select line, sum(talk_seconds) filter (where direction <> 'internal') as talk_seconds, sum(talk_seconds) filter (where direction = 'internal') as internal_talk,
      count(*) filter (where talk_seconds > 0) as talked, count(*) filter (where direction = 'in' and not missed and wait_seconds <= 20) as within_20_s
    from told group by line),
  counted as (
    select line, hour, count(*) filter (where direction = 'in' and not missed) as answered, count(*) filter (where missed) as missed,
      count(*) filter (where direction = 'out') as outgoing, count(*) filter (where direction = 'internal') as internal
    from told group by 1, 2),
  hours as (
    select l.line, array_agg(coalesce(c.answered, 0)::int order by h.hour) as answered, array_agg(coalesce(c.missed, 0)::int order by h.hour) as missed,
      array_agg(coalesce(c.outgoing, 0)::int order by h.hour) as outgoing, array_agg(coalesce(c.internal, 0)::int order by h.hour) as internal
    from lines l cross join generate_series(0, 23) as h (hour) left join counted c on c.line = l.line and c.hour = h.hour group by l.line),
  waits as (
    select line, array_agg(step) filter (where not missed) as waited_steps, array_agg(calls) filter (where not missed) as waited,
      array_agg(step) filter (where missed) as lost_steps, array_agg(calls) filter (where missed) as lost
    from (select line, missed, step_of(wait_seconds) as step, count(*)::int as calls from told where direction = 'in' group by 1, 2, 3) w group by line),
  loads as (
    select line, array_agg(who) as extensions, array_agg(rang) as rang, array_agg(took) as took, array_agg(placed) as placed, array_agg(talk) as talk
    from (select line, who, sum(rang)::int as rang, sum(took)::int as took, sum(placed)::int as placed, sum(talk) as talk
          from (select line, unnest(rang) as who, 1 as rang, 0 as took, 0 as placed, 0::double precision as talk from told where direction = 'in'
                union all select line, answered_by, 0, 1, 0, talk_seconds from told where direction = 'in'
                union all select line, initiator, 0, 0, 1, talk_seconds from told where direction = 'out') did
          where who is not null group by 1, 2) l group by line)
  select p_enterprise, p_day, l.line, h.answered, h.missed, h.outgoing, h.internal, coalesce(l.talk_seconds, 0), coalesce(l.internal_talk, 0), l.talked::int,
    l.within_20_s::int, coalesce(w.waited_steps, '{}'), coalesce(w.waited, '{}'), coalesce(w.lost_steps, '{}'), coalesce(w.lost, '{}'),
    coalesce(o.extensions, '{}'), coalesce(o.rang, '{}'), coalesce(o.took, '{}'), coalesce(o.placed, '{}'), coalesce(o.talk, '{}')
  from lines l join hours h using (line) left join waits w using (line) left join loads o using (line)
$$;

create function count_callbacks(p_enterprise text, p_day date, p_since timestamptz, p_until timestamptz)
returns setof report_callbacks language sql stable as $$
  select p_enterprise, p_day, line, sum(calls)::int, coalesce(array_agg(step) filter (where step is not null), '{}'),
    coalesce(array_agg(calls) filter (where step is not null), '{}')
  from (
    select '=' || coalesce(m.line, '') as line, count(*)::int as calls, case when m.closed_how <> 'done' and m.closed_at < m.missed_at + interval '7 days'
        then step_of(extract(epoch from m.closed_at - m.missed_at)::double precision) end as step
    from missed_calls m where m.enterprise_number = p_enterprise and m.missed_at >= p_since and m.missed_at < p_until group by 1, 3) n
  group by line
$$;

create function count_told(p_enterprise text, p_day date, p_since timestamptz, p_until timestamptz)
returns setof report_told language sql stable as $$
  select p_enterprise, p_day, integration, kind, state, sum(deliveries)::int, coalesce(array_agg(step) filter (where step is not null), '{}'),
    coalesce(array_agg(deliveries) filter (where step is not null), '{}')
  from (
    select d.integration, d.kind, d.state, count(*)::int as deliveries,
      case when d.state = 'delivered' then step_of(extract(epoch from d.finished_at - d.created_at)::double precision) end as step
    from deliveries d where d.enterprise_number = p_enterprise and d.created_at >= p_since and d.created_at < p_until group by 1, 2, 3, 5) n
  group by 3, 4, 5
  union all
  select p_enterprise, p_day, l.integration_type, '', case l.status when 'error' then 'failure' else 'attempt' end, count(*)::int, '{}', '{}'
  from integration_logs l where l.enterprise_number = p_enterprise and l.created_at >= p_since and l.created_at < p_until group by 3, 5
$$;

-- The local days of a period.
create function local_days(p_first date, p_last date, p_zone text) returns table (day date, since timestamptz, until timestamptz)
language sql stable as $$
  select d::date, d::timestamp at time zone p_zone, (d + interval '1 day')::timestamp at time zone p_zone
  from generate_series(p_first::timestamp, p_last::timestamp, interval '1 day') as d
$$;

-- A change of what is over: the day is counted anew. Fires for nothing that is younger than an hour, so that live calls do not pay for it; nothing is summed
-- before a day has been over for two. The lock lets no change slip in between the counting of its day and the commit of that.
create function unsum(p_enterprise text, p_part text, p_at timestamptz) returns void language plpgsql as $$
begin
  perform pg_advisory_xact_lock_shared(hashtextextended('reports ' || p_part || ' ' || p_enterprise, 0));
  delete from report_days where enterprise_number = p_enterprise and part = p_part and since <= p_at and until > p_at
    and day between (p_at at time zone 'UTC')::date - 1 and (p_at at time zone 'UTC')::date + 1;
end $$;

create function unsum_call() returns trigger language plpgsql as $$
begin
  if tg_op <> 'INSERT' then perform unsum(old.enterprise_number, 'calls', old.started_at); end if;
  if tg_op <> 'DELETE' then perform unsum(new.enterprise_number, 'calls', new.started_at); end if;
  return null;
end $$;
create trigger calls_unsum_new after insert on calls for each row when (new.started_at < now() - interval '1 hour') execute function unsum_call();
create trigger calls_unsum_changed after update on calls for each row
  when (least(old.started_at, new.started_at) < now() - interval '1 hour') execute function unsum_call();
create trigger calls_unsum_gone after delete on calls for each row when (old.started_at < now() - interval '1 hour') execute function unsum_call();

create function unsum_missed() returns trigger language plpgsql as $$
begin
  if tg_op <> 'INSERT' then perform unsum(old.enterprise_number, 'callback', old.missed_at); end if;
  if tg_op <> 'DELETE' then perform unsum(new.enterprise_number, 'callback', new.missed_at); end if;
  return null;
end $$;
-- A day of these is final after seven more.
create trigger missed_unsum_new after insert on missed_calls for each row when (new.missed_at < now() - interval '7 days') execute function unsum_missed();
create trigger missed_unsum_changed after update on missed_calls for each row
  when (least(old.missed_at, new.missed_at) < now() - interval '7 days') execute function unsum_missed();
create trigger missed_unsum_gone after delete on missed_calls for each row when (old.missed_at < now() - interval '7 days') execute function unsum_missed();

create function unsum_delivery() returns trigger language plpgsql as $$
begin
  if tg_op <> 'INSERT' then perform unsum(old.enterprise_number, 'told', old.created_at); end if;
  if tg_op <> 'DELETE' then perform unsum(new.enterprise_number, 'told', new.created_at); end if;
  return null;
end $$;
create trigger deliveries_unsum_new after insert on deliveries for each row when (new.created_at < now() - interval '1 hour') execute function unsum_delivery();
create trigger deliveries_unsum_changed after update of state, finished_at on deliveries for each row
  when (old.created_at < now() - interval '1 hour' and (old.state, old.finished_at) is distinct from (new.state, new.finished_at))
  execute function unsum_delivery();
create trigger deliveries_unsum_gone after delete on deliveries for each row when (old.created_at < now() - interval '1 hour') execute function unsum_delivery();
create trigger integration_logs_unsum after insert on integration_logs for each row
  when (new.created_at < now() - interval '1 hour') execute function unsum_delivery();

-- Sums at most p_most days of a tenant that are over and not summed, the newest first; gives how many. 0 also when another daemon is at it.
-- Within the tenant's transaction.
create function sum_days(p_enterprise text, p_part text, p_zone text, p_most int) returns int language plpgsql as $$
declare
  final timestamptz := now() - interval '2 hours' - case p_part when 'callback' then interval '7 days' else interval '0' end;
  first timestamptz;
  one record;
  done int := 0;
begin
  if not pg_try_advisory_xact_lock(hashtextextended('reports ' || p_part || ' ' || p_enterprise, 0)) then
    return 0;
  end if;
  first := case p_part
    when 'calls' then (select min(started_at) from calls where enterprise_number = p_enterprise)
    when 'callback' then (select min(missed_at) from missed_calls where enterprise_number = p_enterprise)
    else least((select min(created_at) from deliveries where enterprise_number = p_enterprise),
      (select min(created_at) from integration_logs where enterprise_number = p_enterprise)) end;
  if first is null then
    return 0;
  end if;
  for one in
    select d.* from local_days(greatest(first, now() - interval '400 days')::date - 1, final::date + 1, p_zone) d
    where d.until <= final and d.until > first and not exists (
      select from report_days s where s.enterprise_number = p_enterprise and s.part = p_part and s.day = d.day
        and s.zone = p_zone and s.since = d.since and s.until = d.until)
    order by d.day desc limit p_most
  loop
    case p_part
      when 'calls' then
        delete from report_calls where enterprise_number = p_enterprise and day = one.day;
        insert into report_calls select * from count_calls(p_enterprise, one.day, one.since, one.until, p_zone);
      when 'callback' then
        delete from report_callbacks where enterprise_number = p_enterprise and day = one.day;
        insert into report_callbacks select * from count_callbacks(p_enterprise, one.day, one.since, one.until);
      else
        delete from report_told where enterprise_number = p_enterprise and day = one.day;
        insert into report_told select * from count_told(p_enterprise, one.day, one.since, one.until);
    end case;
    insert into report_days as s (enterprise_number, part, day, zone, since, until) values (p_enterprise, p_part, one.day, p_zone, one.since, one.until)
      on conflict (enterprise_number, part, day) do update set zone = excluded.zone, since = excluded.since, until = excluded.until;
    done := done + 1;
  end loop;
  return done;
end $$;

-- Enterprises at a glance: those named, for as many as a page shows. open_missed: missed calls that nobody answered since, 1000: that many or more.
drop function glance(text);
create function glance(p_enterprises text[])
returns table (enterprise_number text, calls bigint, missed bigint, open_missed bigint, dead bigint, connections jsonb)
language sql stable security definer set search_path = public as $$
  select e.number, c.calls, c.missed, m.open_missed, d.dead, s.connections
  from unnest(p_enterprises) as e (number),
    lateral (select count(*) as calls, count(*) filter (where k.missed) as missed from calls k
      where k.enterprise_number = e.number and k.started_at > now() - interval '1 day' and k.direction <> 'internal') c,
    lateral (select count(*) as open_missed from (
      select from missed_calls k where k.enterprise_number = e.number and k.closed_at is null limit 1000) k) m,
    lateral (select count(*) as dead from deliveries k where k.enterprise_number = e.number and k.state = 'dead') d,
    lateral (select coalesce(jsonb_object_agg(k.integration, jsonb_build_object('state', k.state, 'reason', k.reason)), '{}') as connections
      from connections k where k.enterprise_number = e.number) s
$$;

-- Enterprises to look after, of all: with deliveries given up, or with a connection that is not well.
create function troubled() returns setof text language sql stable security definer set search_path = public as $$
  select enterprise_number from deliveries where state = 'dead' group by 1 union select enterprise_number from connections where state <> 'ok'
$$;

do $$
declare
  routine regprocedure;
begin
  for routine in select p.oid::regprocedure from pg_proc p where p.pronamespace = 'public'::regnamespace
      and p.proname in ('glance', 'troubled', 'step_of', 'count_calls', 'count_callbacks', 'count_told', 'local_days', 'unsum', 'unsum_call', 'unsum_missed',
        'unsum_delivery', 'sum_days') loop
    execute format('revoke execute on function %s from public', routine);
    execute format('grant execute on function %s to vochid_app', routine);
  end loop;
end $$;
