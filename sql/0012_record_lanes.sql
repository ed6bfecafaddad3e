-- A delivery is about a call or about another record (a ticket, an order, a contact): order is kept per lane, which either gives it.

alter table deliveries alter column call_id drop not null;
alter table deliveries add column record text check (record ~ '^[a-z_]{1,32}/.{1,200}$');  -- type/id
alter table deliveries add column lane uuid not null generated always as (coalesce(call_id, md5(record)::uuid)) stored;
alter table deliveries add constraint deliveries_about check ((call_id is null) <> (record is null));
drop index deliveries_lane;
create index deliveries_lane on deliveries (enterprise_number, integration, lane, id) where state in ('waiting', 'sending');
create index deliveries_record on deliveries (enterprise_number, record) where record is not null;

alter table lane_memory rename column call_id to lane;

create or replace function claim_deliveries(p_enterprise text, p_integration text, p_owner text, p_kinds text[], p_limit int, p_claim_s double precision,
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
            and earlier.lane = d.lane and earlier.state in ('waiting', 'sending') and earlier.id < d.id)
      order by d.priority, d.due_at, d.id
      limit p_limit
      for update skip locked)
    update deliveries d
      set state = 'sending', attempts = d.attempts + 1, claimed_by = p_owner, claimed_until = now() + make_interval(secs => p_claim_s)
      from picked where d.id = picked.id
      returning d.*;
end $$;

create or replace function settle_deliveries(p_enterprise text, p_integration text, p_owner text, p_results jsonb, p_logs jsonb)
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
  insert into lane_memory (enterprise_number, integration, lane, memory)
    select p_enterprise, p_integration, d.lane, r.memory
    from jsonb_to_recordset(p_results) as r (id bigint, memory jsonb) join deliveries d on d.id = r.id where r.memory is not null
    on conflict (enterprise_number, integration, lane) do update
      set memory = lane_memory.memory || excluded.memory, updated_at = now();
  insert into integration_logs (enterprise_number, integration_type, event_type, request_data, response_data, status, error_message, delivery_id)
    select p_enterprise, p_integration, l.event_type, l.request_data, l.response_data, l.status, l.error_message, l.delivery_id
    from jsonb_to_recordset(p_logs) as l (event_type text, request_data jsonb, response_data jsonb, status text, error_message text, delivery_id bigint);
  return settled;
end $$;

-- What the lane's deliveries so far left. Volatile: it sees what was settled until now, while a join beside claim_deliveries saw what had
-- been settled before that statement began, which for the next delivery of a lane that was settled meanwhile is too old.
create function memory_of_lane(p_enterprise text, p_integration text, p_lane uuid) returns jsonb language plpgsql volatile as $$
begin
  return (select memory from lane_memory where enterprise_number = p_enterprise and integration = p_integration and lane = p_lane);
end $$;

-- What is to be told about records, in the caller's transaction of that tenant; the same key is never stored twice.
create function tell_of_records(p_enterprise text, p_deliveries jsonb) returns int language plpgsql as $$
declare
  told int;
begin
  insert into deliveries (enterprise_number, integration, record, kind, key, priority, payload, expires_at)
    select p_enterprise, n.integration, n.record, n.kind, n.key, n.priority, n.payload, now() + make_interval(secs => n.expires_s)
    from rows from (jsonb_to_recordset(p_deliveries) as (integration text, record text, kind text, key text, priority int,
      payload jsonb, expires_s double precision)) with ordinality as n (integration, record, kind, key, priority, payload, expires_s, position)
    order by n.position
    on conflict (enterprise_number, integration, key) do nothing;
  get diagnostics told = row_count;
  return told;
end $$;
revoke execute on function memory_of_lane(text, text, uuid), tell_of_records(text, jsonb) from public;
grant execute on function memory_of_lane(text, text, uuid), tell_of_records(text, jsonb) to vochid_app;
