-- What the first meeting with a portal, and its tasks, look for.

create index crm_companies_name on crm_companies (enterprise_number, folded(name));
create index bitrix24_sync_mappings_tasks on bitrix24_sync_mappings using gin (tasks jsonb_path_ops) where tasks <> '[]';

-- As before, but what was tried before shares a request too, for the kinds that are named: of a sync each used to take a request of its own, and six of
-- them the place of two hundred.
drop function claim_due(text, text, text, text[], text[], int[], text[], int, double precision);
create function claim_due(p_enterprise text, p_integration text, p_owner text, p_alone text[], p_batched text[], p_sizes int[],
  p_repeatable text[], p_room int, p_claim_s double precision, p_together text[] default '{}')
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
        select d.id, d.kind, d.kind = any (p_together) or (d.attempts = 0 and not d.uncertain) as fresh, d.priority, d.due_at from deliveries d
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
revoke execute on function claim_due(text, text, text, text[], text[], int[], text[], int, double precision, text[]) from public;
grant execute on function claim_due(text, text, text, text[], text[], int[], text[], int, double precision, text[]) to vochid_app;
