-- Everything that is sealed at rest, for `vochid keys rotate`: where it is, whose, and the sealed text itself.
create function sealed_texts() returns table (place text, owner text, key text, sealed text)
language sql stable security definer set search_path = public as $$
  select 'settings', e.number, '', found[1]
    from enterprises e, regexp_matches(e.settings::text || e.integrations_config::text, '"sealed": "(v[0-9]+:[^"]+)"', 'g') as found
  union all
  select 'tokens', c.enterprise_number, c.integration, c.tokens from connections c where c.tokens is not null
  union all
  select 'registration', s.enterprise_number, s.integration, s.registered_as from integration_state s where s.registered_as is not null
  union all
  select 'second factor', u.login, u.id::text, u.totp from users u where u.totp is not null
$$;

-- Puts the new text where the old one still is; false when it was changed meanwhile. Sealed texts are unlike anything else in a document.
create function reseal(p_place text, p_owner text, p_key text, p_old text, p_new text) returns boolean
language plpgsql volatile security definer set search_path = public as $$
begin
  case p_place
    when 'settings' then
      update enterprises set settings = replace(settings::text, p_old, p_new)::jsonb,
                             integrations_config = replace(integrations_config::text, p_old, p_new)::jsonb
        where number = p_owner and (strpos(settings::text, p_old) > 0 or strpos(integrations_config::text, p_old) > 0);
    when 'tokens' then
      update connections set tokens = p_new where enterprise_number = p_owner and integration = p_key and tokens = p_old;
    when 'registration' then
      update integration_state set registered_as = p_new where enterprise_number = p_owner and integration = p_key and registered_as = p_old;
    when 'second factor' then
      update users set totp = p_new where id = p_key::bigint and totp = p_old;
  end case;
  return found;
end $$;

revoke execute on function sealed_texts(), reseal(text, text, text, text, text) from public;
grant execute on function sealed_texts(), reseal(text, text, text, text, text) to vochid_app;
