-- Records made by people and programs: the same request again makes nothing twice; callers are found by phone, the newest first, without sorting.

alter table crm_companies add column idempotency_key text;
alter table crm_contracts add column idempotency_key text;
alter table crm_objects add column idempotency_key text;
alter table crm_users add column idempotency_key text;
create unique index crm_companies_key on crm_companies (enterprise_number, idempotency_key) where idempotency_key is not null;
create unique index crm_contracts_key on crm_contracts (enterprise_number, idempotency_key) where idempotency_key is not null;
create unique index crm_objects_key on crm_objects (enterprise_number, idempotency_key) where idempotency_key is not null;
create unique index crm_users_key on crm_users (enterprise_number, idempotency_key) where idempotency_key is not null;

drop index crm_companies_phone;
drop index crm_users_phone;
create index crm_companies_phone on crm_companies (enterprise_number, phone, id) where phone is not null;
create index crm_users_phone on crm_users (enterprise_number, phone, id) where phone is not null;

-- Users and companies that have these numbers, at most p_most of each for a number, the newest first. By way of lateral joins, so that each number is
-- one look into an index, however many records have it.
create function known_by_phone(p_enterprise text, p_phones text[], p_most int)
returns table (phone text, type text, id bigint, name text) language sql stable begin atomic
  select asked.phone, found.type, found.id, found.name from unnest(p_phones) as asked (phone), lateral (
    (select 'user' as type, u.id, u.name from crm_users u where u.enterprise_number = p_enterprise and u.phone = asked.phone order by u.id desc limit p_most)
    union all
    (select 'company', c.id, c.name from crm_companies c where c.enterprise_number = p_enterprise and c.phone = asked.phone order by c.id desc limit p_most)
  ) as found;
end;
revoke execute on function known_by_phone(text, text[], int) from public;
grant execute on function known_by_phone(text, text[], int) to vochid_app;
