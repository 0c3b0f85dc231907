-- Who acts. Behind PostgREST or a pooler every session_user is the same login, and the person is in
-- `role`; a function that is SECURITY DEFINER changes current_user but not this setting.

create or replace function pgflow._actor()
returns text
language sql
stable
as $$
    select coalesce(nullif(current_setting('role'), 'none'), session_user)
$$;
comment on function pgflow._actor is 'The role that acts: set with set role, else the login.';

create or replace function pgflow._is_member(p_project text)
returns boolean
language sql
stable
as $$
    select exists (
        select from pgflow.project_member m
        join pg_catalog.pg_roles r on r.rolname = m.member
        where m.project_id = p_project
          and pg_has_role(pgflow._actor()::name, r.oid, 'usage')
    ) or pg_has_role(pgflow._actor()::name, 'pgflow_admin', 'usage')
$$;
comment on function pgflow._is_member is
    'Whether the actor is a member of the project, or an admin.';

-- An unknown project and one of others give the same refusal: nobody learns what exists. (Not named
-- _project: that is the array type of table project, and a call with a literal would be a cast.)
create or replace function pgflow._enter_project(p_project text)
returns text
language plpgsql
stable
as $$
declare
    v_project text := coalesce(p_project, nullif(current_setting('pgflow.project', true), ''),
        'default');
begin
    perform from pgflow.project p
    where p.project_id = v_project and (not p.members_only or pgflow._is_member(v_project));
    if not found then
        perform pgflow._refuse('PF502', format('unknown project: %s', left(v_project, 63)),
            'There is no such project, or you are not a member of it.',
            'An admin makes projects (pgflow.create_project) and adds you (pgflow.add_member).',
            'project');
    end if;
    return v_project;
end
$$;
comment on function pgflow._enter_project is
    'The project meant: the argument, else the setting pgflow.project, else default. Raises PF502.';

create or replace function pgflow.this_project(project text default null)
returns text
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
begin
    return pgflow._enter_project(this_project.project);
end
$$;
comment on function pgflow.this_project is
    'The project that a call with this argument works in: the argument, else the setting '
    'pgflow.project, else default. Raises PF502.';

-- For views: computed once per statement, since it is called in a scalar subquery.
create or replace function pgflow._my_projects()
returns text[]
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
begin
    return array(
        select p.project_id from pgflow.project p
        where not p.members_only or pgflow._is_member(p.project_id));
end
$$;
comment on function pgflow._my_projects is 'The projects whose rows the actor sees.';

create or replace function pgflow.create_project(project text, members text[] default '{}')
returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
begin
    if create_project.project is null or create_project.project !~ '^[A-Za-z0-9_.-]{1,63}$' then
        perform pgflow._refuse_value('project', '1 to 63 letters, digits, _, . or -',
            create_project.project);
    end if;
    insert into pgflow.project (project_id) values (create_project.project) on conflict do nothing;
    insert into pgflow.tick (project_id, last_at) values (create_project.project, '-infinity')
    on conflict do nothing;
    perform pgflow.add_member(m, create_project.project) from unnest(create_project.members) as m;
    return create_project.project;
end
$$;
comment on function pgflow.create_project is
    'Makes a project that only its members use; again is harmless. Example: select '
    'pgflow.create_project(''acme'', ''{alice}''). Raises PF101.';

create or replace function pgflow.add_member(member text, project text default null)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_project text := pgflow._enter_project(add_member.project);
begin
    if not exists (select from pg_catalog.pg_roles r where r.rolname = add_member.member) then
        perform pgflow._refuse_value('member', 'an existing database role', add_member.member);
    end if;
    insert into pgflow.project_member (project_id, member) values (v_project, add_member.member)
    on conflict do nothing;
end
$$;
comment on function pgflow.add_member is
    'Lets a database role, and every login that has it, use a project. Raises PF101, PF502.';

create or replace function pgflow.remove_member(member text, project text default null)
returns boolean
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_project text := pgflow._enter_project(remove_member.project);
begin
    delete from pgflow.project_member m
    where m.project_id = v_project and m.member = remove_member.member;
    return found;
end
$$;
comment on function pgflow.remove_member is
    'Takes a role out of a project; false if it was not in. Raises PF502.';
