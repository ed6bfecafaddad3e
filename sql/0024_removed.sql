-- What removed enterprises left goes in bounded pieces: tickets had no bound. At most p_most rows of each kind; gives how many went.
drop function keep_removed(int, int);

create function keep_removed(p_days int, p_most int) returns table (what text, gone bigint)
language plpgsql security definer set search_path = public as $$
begin
  perform set_config('vochid.keeping', 'on', true);
  return query
    with old as (select enterprise_number, id from calls c where started_at < now() - make_interval(days => p_days)
                   and not exists (select from enterprises e where e.number = c.enterprise_number) limit p_most),
    gone as (delete from calls c using old where c.enterprise_number = old.enterprise_number and c.id = old.id returning 1)
    select 'calls', count(*) from gone;
  return query
    with old as (select enterprise_number, id from support_tickets t where updated_at < now() - make_interval(days => p_days)
                   and not exists (select from enterprises e where e.number = t.enterprise_number) limit p_most),
    gone as (delete from support_tickets t using old where t.enterprise_number = old.enterprise_number and t.id = old.id returning 1)
    select 'tickets', count(*) from gone;
  perform set_config('vochid.keeping', '', true);
end $$;

revoke execute on function keep_removed(int, int) from public;
grant execute on function keep_removed(int, int) to vochid_app;
