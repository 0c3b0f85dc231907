-- Roles come first because every right in the schema hangs on them. They belong to the whole
-- server, so another database may have made them already, or may be making them at this moment.
do $$
declare
    v_role text;
    v_member text;
begin
    foreach v_role in array array['pgflow_owner', 'pgflow_reader', 'pgflow_client',
                                  'pgflow_approver', 'pgflow_application', 'pgflow_worker',
                                  'pgflow_admin']
    loop
        begin
            if not exists (select from pg_catalog.pg_roles r where r.rolname = v_role) then
                execute 'create role ' || quote_ident(v_role) || ' nologin';
            end if;
        exception when duplicate_object or unique_violation then
            null;  -- made by a migration of another database in the meantime, which is what we want
        end;
    end loop;
    for v_role, v_member in values ('pgflow_reader', 'pgflow_client'),
    ('pgflow_reader', 'pgflow_approver'), ('pgflow_approver', 'pgflow_application'),
        ('pgflow_client', 'pgflow_worker'), ('pgflow_worker', 'pgflow_admin'),
        ('pgflow_approver', 'pgflow_admin'), ('pgflow_owner', current_user),
        ('pgflow_admin', current_user)
    loop
        begin
            if v_member = current_user then
                -- Being granted a role is not enough from 16 on: whoever migrates must be able to
                -- set it.
                perform set_config('role', v_role, true), set_config('role', 'none', true);
            elsif not exists (
                select from pg_catalog.pg_auth_members m
                where m.roleid = v_role::regrole and m.member = quote_ident(v_member)::regrole
            ) then
                execute 'grant ' || quote_ident(v_role) || ' to ' || quote_ident(v_member);
            end if;
        exception
            when unique_violation then
                null;
            when insufficient_privilege then
                execute 'grant ' || quote_ident(v_role) || ' to ' || quote_ident(v_member);
        end;
    end loop;
end
$$;

create schema if not exists pgflow authorization pgflow_owner;
comment on schema pgflow is
    'Job queue and durable run engine: runs, leases, human tasks, timelines.';
