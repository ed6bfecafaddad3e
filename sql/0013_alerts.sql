-- What the operator's webhook (VOCHID_ALERT_URL) is told: an alarm that began, and that it ended; by one node, in that order.
create table alerts (
  id uuid primary key default gen_random_uuid(),
  enterprise_number text not null references enterprises (number) on delete cascade,
  code text not null,                    -- pbx_down, pbx_unread, needs_reauth, connection_off, old_deliveries
  subject text not null,                 -- the PBX or the integration
  severity text not null,
  detail text not null,
  began_at timestamptz not null default now(),
  ended_at timestamptz,
  told text not null default 'nothing' check (told in ('nothing', 'began', 'ended')),
  tries int not null default 0,
  next_try_at timestamptz not null default now()
);
create unique index alerts_open on alerts (enterprise_number, code, subject) where ended_at is null;
create index alerts_untold on alerts (next_try_at) where told = 'nothing' or (told = 'began' and ended_at is not null);
alter table alerts enable row level security;  -- no policy: the functions below are the way

create function connections_in_trouble(p_old_s double precision)
returns table (enterprise_number text, code text, subject text, detail text) language sql stable security definer set search_path = public as $$
  select c.enterprise_number, case c.state when 'needs_reauth' then 'needs_reauth' else 'connection_off' end, c.integration, c.reason
    from connections c join enterprises e on e.number = c.enterprise_number
    where c.state <> 'ok' and e.integrations_config ? c.integration
  union all
  select d.enterprise_number, 'old_deliveries', d.integration, round(extract(epoch from now() - min(d.created_at)))::text
    from deliveries d where d.state in ('waiting', 'sending') group by d.enterprise_number, d.integration
    having min(d.created_at) < now() - make_interval(secs => p_old_s)
$$;

create function open_alerts() returns table (enterprise_number text, code text, subject text)
language sql stable security definer set search_path = public as
  $$ select a.enterprise_number, a.code, a.subject from alerts a where a.ended_at is null $$;

-- p_alerts: [{enterprise_number, code, subject, severity, detail}]. What is open already stays as it is.
create function begin_alerts(p_alerts jsonb) returns int language sql volatile security definer set search_path = public as $$
  with begun as (
    insert into alerts (enterprise_number, code, subject, severity, detail)
      select n.enterprise_number, n.code, n.subject, n.severity, n.detail
      from jsonb_to_recordset(p_alerts) as n (enterprise_number text, code text, subject text, severity text, detail text)
      join enterprises e on e.number = n.enterprise_number
      on conflict (enterprise_number, code, subject) where ended_at is null do nothing
      returning 1)
  select count(*)::int from begun
$$;

create function end_alerts(p_alerts jsonb) returns void language sql volatile security definer set search_path = public as $$
  update alerts a set ended_at = now(), next_try_at = least(a.next_try_at, now())
    from jsonb_to_recordset(p_alerts) as n (enterprise_number text, code text, subject text)
    where a.enterprise_number = n.enterprise_number and a.code = n.code and a.subject = n.subject and a.ended_at is null
$$;

-- Whoever claims has so many seconds to tell; a try that came to nothing is due again later and later, within ten minutes.
create function claim_alerts(p_limit int, p_claim_s double precision) returns setof alerts language sql volatile security definer set search_path = public as $$
  update alerts a set tries = a.tries + 1, next_try_at = now() + make_interval(secs => p_claim_s * least(power(2, a.tries), 20))
    from (select id from alerts where next_try_at <= now() and (told = 'nothing' or (told = 'began' and ended_at is not null))
            order by began_at limit p_limit for update skip locked) due
    where a.id = due.id returning a.*
$$;

create function told_alert(p_id uuid, p_told text) returns void language sql volatile security definer set search_path = public as
  $$ update alerts set told = p_told, tries = 0, next_try_at = now() where id = p_id $$;

create function forget_alerts(p_days int) returns void language sql volatile security definer set search_path = public as
  $$ delete from alerts where ended_at < now() - make_interval(days => p_days) $$;

do $$
declare
  routine regprocedure;
begin
  for routine in select p.oid::regprocedure from pg_proc p where p.pronamespace = 'public'::regnamespace
      and p.proname in ('connections_in_trouble', 'open_alerts', 'begin_alerts', 'end_alerts', 'claim_alerts', 'told_alert', 'forget_alerts') loop
    execute format('revoke execute on function %s from public', routine);
    execute format('grant execute on function %s to vochid_app', routine);
  end loop;
end $$;
