-- What is known of each integration besides its settings: how vochid stands registered there, and whom the CRM listed last.
create table integration_state (
  enterprise_number text not null references enterprises (number) on delete cascade,
  integration text not null,
  registered_at timestamptz,              -- null: not registered
  registered_as text,                     -- sealed: what the CRM was told to identify itself and to open the cabinet with
  last_sync_at timestamptz,               -- null: its people were never fetched
  users jsonb not null default '{}',      -- CRM user id -> name, as last seen; whoever is gone stays while an extension is held
  primary key (enterprise_number, integration)
);
alter table integration_state enable row level security;
create policy tenant on integration_state using (enterprise_number = tenant()) with check (enterprise_number = tenant());
grant select, insert, update, delete on integration_state to vochid_app;

-- An integration that is taken out of the settings, by whomever, takes its tokens and its state along.
create function forget_integrations() returns trigger language plpgsql as $$
begin
  delete from inbound_tokens t where t.enterprise_number = new.number and t.integration <> '' and not new.integrations_config ? t.integration;
  delete from integration_state s where s.enterprise_number = new.number and not new.integrations_config ? s.integration;
  return null;
end $$;
revoke execute on function forget_integrations() from public;
create trigger enterprises_forget after update of integrations_config on enterprises
  for each row when (old.integrations_config is distinct from new.integrations_config) execute function forget_integrations();

-- The last success and the last failure of a connection, however much was said since.
create index integration_logs_last on integration_logs (enterprise_number, integration_type, status, created_at desc);
