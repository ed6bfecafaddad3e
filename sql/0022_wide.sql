-- A million deliveries may wait: what looks at all of them every few seconds takes a few steps per connection instead of reading each.
create index deliveries_open on deliveries (enterprise_number, integration, id) where state in ('waiting', 'sending');

-- Connections that have something open, with the oldest of it: one step in the index each. The order names all three columns and is begun by
-- a row comparison, so that no other index can stand in: by its number alone a delivery is found behind all those that are finished.
create function open_connections() returns table (enterprise_number text, integration text, oldest bigint, since timestamptz)
language sql stable security definer set search_path = public as $$
  with recursive lane as (
    (select d.enterprise_number, d.integration, d.id, d.created_at from deliveries d where d.state in ('waiting', 'sending')
      order by d.enterprise_number, d.integration, d.id limit 1)
    union all
    select following.* from lane, lateral (
      select d.enterprise_number, d.integration, d.id, d.created_at from deliveries d
      where d.state in ('waiting', 'sending') and (d.enterprise_number, d.integration) > (lane.enterprise_number, lane.integration)
      order by d.enterprise_number, d.integration, d.id limit 1) following)
  select * from lane
$$;

-- What waits and what is in flight, by integration. At most p_most are counted, shared out evenly between the connections that have any: a
-- longer queue counts as its share. The oldest is that of the integration, whatever its state, and exact.
drop function delivery_backlog();
create function delivery_backlog(p_most int) returns table (integration text, state text, count bigint, oldest_s double precision)
language sql stable security definer set search_path = public as $$
  with connection as materialized (
    select c.*, greatest(10, p_most / count(*) over ()) as share, min(c.since) over (partition by c.integration) as oldest_of_all from open_connections() c)
  select c.integration, d.state, count(*), extract(epoch from now() - min(c.oldest_of_all))
  from connection c, lateral (
    select d.enterprise_number, d.integration, d.state from deliveries d
    where d.state in ('waiting', 'sending') and (d.enterprise_number, d.integration, d.id) >= (c.enterprise_number, c.integration, c.oldest)
    order by d.enterprise_number, d.integration, d.id limit c.share) d
  where d.enterprise_number = c.enterprise_number and d.integration = c.integration
  group by 1, 2
$$;

create or replace function connections_in_trouble(p_old_s double precision)
returns table (enterprise_number text, code text, subject text, detail text) language sql stable security definer set search_path = public as $$
  select c.enterprise_number, case c.state when 'needs_reauth' then 'needs_reauth' else 'connection_off' end, c.integration, c.reason
    from connections c join enterprises e on e.number = c.enterprise_number
    where c.state <> 'ok' and e.integrations_config ? c.integration
  union all
  select c.enterprise_number, 'old_deliveries', c.integration, round(extract(epoch from now() - c.since))::text
    from open_connections() c where c.since < now() - make_interval(secs => p_old_s)
$$;

-- What is due is found kind by kind: a claim used to read through all that was due to find that none of it was a popup, or a recording.
drop index deliveries_due;
create index deliveries_due on deliveries (enterprise_number, integration, kind, priority, due_at, id) where state = 'waiting';

-- As before, but for that: the first of each kind, then the first of all.
create or replace function claim_due(p_enterprise text, p_integration text, p_owner text, p_alone text[], p_batched text[], p_sizes int[],
  p_repeatable text[], p_room int, p_claim_s double precision)
returns setof deliveries language plpgsql set plan_cache_mode = force_generic_plan as $$
declare
  picked bigint[];
  kinds text[];
begin
  perform set_config('vochid.enterprise', p_enterprise, true);
  update deliveries set state = 'dropped', finished_at = now(), last_error = coalesce(last_error || '; ', '') || 'too late to be shown'
    where enterprise_number = p_enterprise and integration = p_integration and state = 'waiting' and expires_at < now();

  select array_agg(d.id), array_agg(d.kind) into picked, kinds from (
    select d.id, d.kind from unnest(p_alone) as k (kind), lateral (
      select d.id, d.kind, d.priority, d.due_at from deliveries d
      where d.enterprise_number = p_enterprise and d.integration = p_integration and d.state = 'waiting' and d.due_at <= now()
        and d.kind = k.kind and not exists (
          select from deliveries earlier
          where earlier.enterprise_number = d.enterprise_number and earlier.integration = d.integration
            and earlier.lane = d.lane and earlier.state in ('waiting', 'sending') and earlier.id < d.id)
      order by d.priority, d.due_at, d.id limit p_room for update skip locked) d
    order by d.priority, d.due_at, d.id limit p_room) d;
  p_room := p_room - coalesce(cardinality(picked), 0);

  if p_room > 0 and cardinality(p_batched) > 0 then
    with heads as (
      select d.*, size from unnest(p_batched, p_sizes) as k (kind, size), lateral (
        select d.id, d.kind, d.attempts = 0 and not d.uncertain as fresh, d.priority, d.due_at from deliveries d
        where d.enterprise_number = p_enterprise and d.integration = p_integration and d.state = 'waiting' and d.due_at <= now()
          and d.kind = k.kind and not exists (
            select from deliveries earlier
            where earlier.enterprise_number = d.enterprise_number and earlier.integration = d.integration
              and earlier.lane = d.lane and earlier.state in ('waiting', 'sending') and earlier.id < d.id)
        order by d.priority, d.due_at, d.id limit k.size + p_room for update skip locked) d),
    numbered as (
      select h.*, row_number() over (partition by kind, fresh order by priority, due_at, id) as place from heads h),
    placed as (  -- a batch takes the room of one
      select n.id, n.kind, sum(case when n.fresh and n.place > 1 then 0 else 1 end) over (order by n.kind, n.fresh, n.place) as request
      from numbered n where not n.fresh or n.place <= n.size)
    select picked || array_agg(p.id), kinds || array_agg(p.kind) into picked, kinds from placed p where p.request <= p_room;
  end if;

  if kinds <@ p_repeatable then
    set local synchronous_commit = off;
  end if;
  return query update deliveries d
    set state = 'sending', attempts = d.attempts + 1, claimed_by = p_owner, claimed_until = now() + make_interval(secs => p_claim_s)
    where d.id = any (picked) returning d.*;
end $$;

-- What a thousand PBXs ask when they all come up at once, in one round trip each: what a former process left.
create function left_of(p_enterprise text, p_pbx text) returns table (boot text, seen_at timestamptz, has_open boolean)
language plpgsql set plan_cache_mode = force_generic_plan as $$
begin
  perform set_config('vochid.enterprise', p_enterprise, true);
  return query select s.boot, s.seen_at,
      exists (select from calls c where c.enterprise_number = p_enterprise and c.pbx = p_pbx and c.ended_at is null)
    from (select) as one left join pbx_states s on s.enterprise_number = p_enterprise and s.pbx = p_pbx;
end $$;

do $$
declare
  routine regprocedure;
begin
  for routine in select p.oid::regprocedure from pg_proc p
    where p.pronamespace = 'public'::regnamespace and p.proname in ('open_connections', 'delivery_backlog', 'connections_in_trouble', 'left_of')
  loop
    execute format('revoke execute on function %s from public', routine);
    execute format('grant execute on function %s to vochid_app', routine);
  end loop;
end $$;
