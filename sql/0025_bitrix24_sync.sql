-- What the first meeting with a portal, and its tasks, look for.

create index crm_companies_name on crm_companies (enterprise_number, folded(name));
create index bitrix24_sync_mappings_tasks on bitrix24_sync_mappings using gin (tasks jsonb_path_ops) where tasks <> '[]';
