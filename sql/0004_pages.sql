-- What the pages ask: search in the history of calls, one call's deliveries, dead letters, who reads which PBX.

-- The customer's number backwards: its end is a prefix, so that "the last digits" is a range of an index. A column and not an
-- expression: under row-level security only comparisons of plain columns may reach an index.
alter table calls add column customer_reversed text collate "C" generated always as (reverse(customer_number)) stored;
create index calls_number on calls (enterprise_number, customer_reversed, started_at desc, id desc) where customer_number is not null;
create index calls_missed on calls (enterprise_number, started_at desc, id desc) where missed;

-- Bodies bound when they are made, not looked up when they run: an index is built with an empty search_path.
-- Small letters whatever the database's locale is; ё counts as е.
create function folded(p_text text) returns text language sql immutable parallel safe
  return lower(translate(p_text, 'АБВГДЕЁЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯЎІЇЄҐё', 'абвгдеежзийклмнопрстуфхцчшщъыьэюяўіїєґе'));

create function words_of(p_text text) returns setof text language sql immutable parallel safe begin atomic
  select distinct left(word, 40) from regexp_split_to_table(folded(p_text), '[\s"''`«»„“”‘’.,;:()\[\]{}<>/\\|&+*!?=#@№—–-]+') as word where word <> '';
end;

-- The words of a name, each with its enterprise before it: one index for all tenants, in which a search touches only its own.
create function name_words(p_enterprise text, p_name text) returns tsvector language sql immutable parallel safe
  return array_to_tsvector(array(select p_enterprise || '/' || word from words_of(p_name) as word));
create index calls_named on calls using gin (name_words(enterprise_number, customer_name)) where customer_name is not null;

-- Calls of the transaction's tenant whose customer's name has words that begin so, newest first. It runs as the owner because
-- row-level security keeps text search off its index; the tenant is the one that is set, never one that is passed.
create function find_named_calls(p_text text, p_since timestamptz, p_until timestamptz, p_before_at timestamptz, p_before_id uuid, p_limit int)
returns table (started_at timestamptz, id uuid)
language sql stable security definer set search_path = public as $$
  select c.started_at, c.id from calls c
  where c.enterprise_number = tenant() and c.customer_name is not null
    and name_words(c.enterprise_number, c.customer_name)
      @@ (select string_agg(quote_literal(tenant() || '/' || word) || ':*', ' & ') from words_of(p_text) as word)::tsquery
    and (p_since is null or c.started_at >= p_since) and (p_until is null or c.started_at < p_until)
    and (p_before_at is null or (c.started_at, c.id) < (p_before_at, p_before_id))
  order by c.started_at desc, c.id desc limit p_limit
$$;

create index if not exists deliveries_call on deliveries (enterprise_number, call_id);
create index deliveries_when on deliveries (enterprise_number, created_at);
create index deliveries_given_up on deliveries (enterprise_number, state, id desc) where state in ('dead', 'discarded', 'dropped');
create index integration_logs_delivery on integration_logs (enterprise_number, delivery_id) where delivery_id is not null;

-- Nodes and what they read, for the operator; secrets are not in it.
create function all_leases() returns setof leases language sql stable security definer set search_path = public as
  $$ select * from leases order by enterprise_number, pbx $$;

do $$
declare
  routine regprocedure;
begin
  for routine in select p.oid::regprocedure from pg_proc p where p.pronamespace = 'public'::regnamespace
      and p.proname in ('folded', 'words_of', 'name_words', 'find_named_calls', 'all_leases') loop
    execute format('revoke execute on function %s from public', routine);
    execute format('grant execute on function %s to vochid_app', routine);
  end loop;
end $$;
