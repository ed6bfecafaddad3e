-- An administrator's way to a CRM's consent page and back (OAuth 2.0): single use, for ten minutes.
create table consent_states (
  state_hash bytea primary key,
  enterprise_number text not null references enterprises (number) on delete cascade,
  integration text not null,
  browser_hash bytea,                    -- the browser that was sent; null: the CRM itself comes with the state
  actor text not null,                   -- who began, for the audit
  actor_role text not null,
  expires_at timestamptz not null
);
create index consent_states_owner on consent_states (enterprise_number, expires_at);

alter table consent_states enable row level security;
create policy tenant on consent_states using (enterprise_number = tenant()) with check (enterprise_number = tenant());
grant select, insert, update, delete on consent_states to vochid_app;

-- Uses a state up. Who comes with the right state from another browser uses nothing up.
create function take_consent(p_states bytea[], p_integration text, p_browsers bytea[])
returns table (enterprise_number text, actor text, actor_role text)
language sql volatile security definer set search_path = public as $$
  delete from consent_states c
    where c.state_hash = any (p_states) and c.integration = p_integration and c.expires_at > now()
      and (c.browser_hash is null or c.browser_hash = any (p_browsers))
    returning c.enterprise_number, c.actor, c.actor_role
$$;
