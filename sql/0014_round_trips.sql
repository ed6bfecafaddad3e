-- Fewer round trips, each cheaper: the outbox is claimed in one statement for all kinds, a settlement says whether there is more to claim;
-- what a click and a dialplan's question need is one statement each; plans are made before the first call needs them.

-- Heads of lanes that are due, as many requests' worth as there is room for: what is told alone first, popups before the rest; then of each
-- batched kind what was tried before, alone (one bad item must not take its neighbours along again and again), and at most one new batch.
-- p_repeatable: the CRM recognises these kinds when they are sent again, so that a claim which a crash of the database forgets does no harm:
-- where all that was claimed is such, the commit need not wait for the disk. What is claimed was committed durably before, in any case.
create function claim_due(p_enterprise text, p_integration text, p_owner text, p_alone text[], p_batched text[], p_sizes int[],
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
    select d.id, d.kind from deliveries d
    where d.enterprise_number = p_enterprise and d.integration = p_integration and d.state = 'waiting' and d.due_at <= now()
      and d.kind = any (p_alone) and not exists (
        select from deliveries earlier
        where earlier.enterprise_number = d.enterprise_number and earlier.integration = d.integration
          and earlier.lane = d.lane and earlier.state in ('waiting', 'sending') and earlier.id < d.id)
    order by d.priority, d.due_at, d.id limit p_room for update skip locked) d;
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
drop function claim_deliveries(text, text, text, text[], int, double precision, boolean, boolean);

-- What came of attempts. `state` waiting: again at due_in_s; counted false: the attempt is given back. Gives whether anything is due now.
drop function settle_deliveries(text, text, text, jsonb, jsonb);
create function settle_deliveries(p_enterprise text, p_integration text, p_owner text, p_results jsonb, p_logs jsonb)
returns boolean language plpgsql set plan_cache_mode = force_generic_plan as $$
begin
  perform set_config('vochid.enterprise', p_enterprise, true);
  update deliveries d set
      state = r.state, last_error = r.error, uncertain = r.uncertain, claimed_by = null, claimed_until = null,
      attempts = d.attempts - case when r.counted then 0 else 1 end,
      due_at = now() + make_interval(secs => coalesce(r.due_in_s, 0)),
      finished_at = case when r.state = 'waiting' then null else now() end
    from jsonb_to_recordset(p_results) as r (id bigint, state text, error text, uncertain boolean, counted boolean, due_in_s double precision)
    where d.id = r.id and d.state = 'sending' and d.claimed_by = p_owner;
  if jsonb_path_exists(p_results, '$[*].memory ? (@ != null)') then
    insert into lane_memory (enterprise_number, integration, lane, memory)
      select p_enterprise, p_integration, d.lane, r.memory
      from jsonb_to_recordset(p_results) as r (id bigint, memory jsonb) join deliveries d on d.id = r.id where r.memory is not null
      on conflict (enterprise_number, integration, lane) do update
        set memory = lane_memory.memory || excluded.memory, updated_at = now();
  end if;
  insert into integration_logs (enterprise_number, integration_type, event_type, request_data, response_data, status, error_message, delivery_id)
    select p_enterprise, p_integration, l.event_type, l.request_data, l.response_data, l.status, l.error_message, l.delivery_id
    from jsonb_to_recordset(p_logs) as l (event_type text, request_data jsonb, response_data jsonb, status text, error_message text, delivery_id bigint);
  return exists (select from deliveries d
    where d.enterprise_number = p_enterprise and d.integration = p_integration and d.state = 'waiting' and d.due_at <= now());
end $$;

-- Plans of these do not depend on what is asked: the plan for all is made at once, not after five plans that cost more than they run.
alter function store_changes(text, text, jsonb, jsonb) set plan_cache_mode = force_generic_plan;
alter function reserve_originate(text, jsonb, jsonb) set plan_cache_mode = force_generic_plan;

-- A request moves on when its state is one of p_came_from; its call is noted in any case. Gives whether it moved.
create function advance_originate(p_enterprise text, p_id uuid, p_state text, p_came_from text[], p_code text, p_reason text, p_call uuid)
returns boolean language plpgsql set plan_cache_mode = force_generic_plan as $$
declare
  moved boolean;
begin
  perform set_config('vochid.enterprise', p_enterprise, true);
  update originate_requests set state = p_state, code = p_code, reason = p_reason, updated_at = now()
    where enterprise_number = p_enterprise and id = p_id and state = any (p_came_from);
  moved := found;
  if p_call is not null then
    update originate_requests set call_id = p_call where enterprise_number = p_enterprise and id = p_id and call_id is null;
  end if;
  return moved;
end $$;

-- What the users of one integration say of themselves.
create function statuses_of(p_enterprise text, p_integration text) returns table (user_id text, status text) language plpgsql as $$
begin
  perform set_config('vochid.enterprise', p_enterprise, true);
  return query select s.user_id, s.status from user_statuses s where s.enterprise_number = p_enterprise and s.integration = p_integration;
end $$;

-- A connection that has not done any of this yet takes fifty milliseconds for a call's first change instead of one. Here it does all of it
-- for a call of an enterprise that cannot exist, and takes it back.
create function rehearse() returns void language plpgsql as $$
declare
  call jsonb := '{"id": "00000000-0000-0000-0000-000000000000", "linkedid": "", "direction": "in", "started_at": "2000-01-01T00:00:00Z",
    "wait_seconds": 0, "talk_seconds": 0, "missed": false, "rang": ["0"], "transfers": [], "click_to_call": false, "consult": false,
    "recordings": [], "gap": false, "legs": [{"channel": "", "kind": "customer", "started_at": "2000-01-01T00:00:00Z"}]}';
  told jsonb := '{"integration": "", "call_id": "00000000-0000-0000-0000-000000000000", "kind": "popup", "key": "", "priority": 0, "payload": {}}';
  claimed bigint;
begin
  perform set_config('vochid.enterprise', '.', true);
  perform store_changes('.', '', jsonb_build_array(call), jsonb_build_array(told));
  select id into claimed from claim_due('.', '', '', '{popup}', '{journal}', '{2}', '{popup,journal}', 2, 1);
  perform settle_deliveries('.', '', '', jsonb_build_array(jsonb_build_object('id', claimed, 'state', 'delivered', 'uncertain', false, 'counted', true)),
    '[{"event_type": "", "request_data": {}, "response_data": {}, "status": "success"}]');
  call := call || '{"ended_at": "2000-01-01T00:00:01Z", "answered_at": "2000-01-01T00:00:01Z", "result": "answered", "answered_by": "0"}';
  perform store_changes('.', '', jsonb_build_array(call), '[]');
  perform reserve_originate('.', '{"id": "00000000-0000-0000-0000-000000000000", "pbx": "", "extension": "", "phone": "", "source": "",
      "channel_id": "", "other_channel_id": ""}',
    '{"per_extension_per_minute": 1, "concurrent": 1, "per_day": 1, "same_click_s": 1, "open_s": 1, "day_began": "2000-01-01T00:00:00Z"}');
  perform advance_originate('.', '00000000-0000-0000-0000-000000000000', 'sent', '{reserved}', null, null, null);
  raise exception 'taken back' using errcode = 'VL002';
exception when sqlstate 'VL002' then
  null;
end $$;

do $$
declare
  routine regprocedure;
begin
  for routine in select p.oid::regprocedure from pg_proc p
    where p.pronamespace = 'public'::regnamespace and p.proname in ('claim_due', 'settle_deliveries', 'advance_originate', 'statuses_of', 'rehearse')
  loop
    execute format('revoke execute on function %s from public', routine);
    execute format('grant execute on function %s to vochid_app', routine);
  end loop;
end $$;
