-- Recordings: links that can be revoked, journals that wait for their file, names that come later. Settings of named tenants.

-- Every link carries its enterprise's epoch; another number here ends them all. It starts at the clock, so that an enterprise that is
-- removed and made again does not revive its old links.
alter table enterprises add column recordings_epoch bigint not null default extract(epoch from clock_timestamp())::bigint;

create function notify_recordings_epoch() returns trigger language plpgsql as $$
begin
  perform pg_notify('vochid_settings', json_build_object('enterprise_number', new.number, 'integration_type', null)::text);
  return null;
end $$;
create trigger enterprises_notify_epoch after update of recordings_epoch on enterprises
  for each row when (old.recordings_epoch is distinct from new.recordings_epoch) execute function notify_recordings_epoch();

create function revoke_recording_links(p_enterprise text) returns bigint language plpgsql as $$
declare
  made bigint;
begin
  perform set_config('vochid.enterprise', p_enterprise, true);
  update enterprises set recordings_epoch = greatest(recordings_epoch + 1, extract(epoch from clock_timestamp())::bigint)
    where number = p_enterprise returning recordings_epoch into made;
  return made;
end $$;

-- A delivery whose payload says hold_s becomes due that many seconds later, unless it is released before.
create function hold_delivery() returns trigger language plpgsql as $$
begin
  new.due_at := now() + make_interval(secs => least((new.payload ->> 'hold_s')::float8, 300));
  new.payload := new.payload - 'hold_s';
  return new;
end $$;
create trigger deliveries_hold before insert on deliveries for each row when (new.payload ? 'hold_s') execute function hold_delivery();

-- One round trip for a download: row-level security holds, the tenant is the one that the signed link names.
create function find_recording(p_enterprise text, p_call uuid)
returns table (pbx text, recordings text[], started_at timestamptz, ended_at timestamptz, epoch bigint) language plpgsql as $$
begin
  perform set_config('vochid.enterprise', p_enterprise, true);
  return query select c.pbx, c.recordings, c.started_at, c.ended_at, e.recordings_epoch
    from calls c join enterprises e on e.number = c.enterprise_number
    where c.enterprise_number = p_enterprise and c.id = p_call;
end $$;

-- A name that comes after the call: on the call, on what still waits to be told of it, and as deliveries of its own.
create function attach_recording(p_enterprise text, p_call uuid, p_name text, p_deliveries jsonb) returns boolean language plpgsql as $$
declare
  names text[];
begin
  perform set_config('vochid.enterprise', p_enterprise, true);
  update calls c set recordings = array_append(c.recordings, p_name), updated_at = now()
    where c.enterprise_number = p_enterprise and c.id = p_call and not p_name = any (c.recordings) returning c.recordings into names;
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

-- What a notification named, and nothing more: two statements for any number of tenants.
create function enterprises_named(p_numbers text[]) returns setof enterprises language sql stable security definer set search_path = public as
  $$ select * from enterprises where number = any (p_numbers) order by number $$;

create function phones_named(p_numbers text[]) returns setof user_internal_phones language sql stable security definer set search_path = public as
  $$ select * from user_internal_phones where enterprise_number = any (p_numbers) order by enterprise_number, position, number $$;

do $$
declare
  routine regprocedure;
begin
  for routine in select p.oid::regprocedure from pg_proc p where p.pronamespace = 'public'::regnamespace
    and p.proname in ('notify_recordings_epoch', 'revoke_recording_links', 'hold_delivery', 'find_recording', 'attach_recording',
      'enterprises_named', 'phones_named')
  loop
    execute format('revoke execute on function %s from public', routine);
    execute format('grant execute on function %s to vochid_app', routine);
  end loop;
end $$;
