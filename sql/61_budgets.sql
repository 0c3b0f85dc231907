-- Budgets: how much a run and all below it may spend. What each call of a model took is added to
-- the budget that its run names, and to those around that one, so a call costs the same however
-- large the family is. 62_spending has the counting, 63_raise what follows when it is exceeded.

create or replace function pgflow._budget_faults(
    p_budget jsonb, out field text, out expected text
)
returns setof record
language sql
immutable
as $$
    select '', 'an object with at least one of usd, tokens and seconds'
    where not coalesce(pgflow._members(p_budget) ?| '{usd,tokens,seconds}', false)
    union all
    select '.' || m.key, coalesce(k.expected, 'left out: it is no member of a budget')
    from jsonb_each(pgflow._members(p_budget)) as m
    left join (values
        ('usd', 'a number from 0.000001 to 1000000000',
            pgflow._is_number(p_budget -> 'usd', 0.000001, 1000000000)),
        ('tokens', 'a whole number from 1 to 1000000000000000',
            case when pgflow._is_number(p_budget -> 'tokens', 1, 1000000000000000)
                 then (p_budget ->> 'tokens')::numeric % 1 = 0 end),
        ('seconds', 'a number from 0.001 to 315360000',
            pgflow._is_number(p_budget -> 'seconds', 0.001, 315360000)),
        ('on_breach', 'fail or ask', pgflow._is_text(p_budget -> 'on_breach', '^(fail|ask)$')),
        ('assignee', 'a text of 1 to 200 characters, beside "on_breach": "ask"',
            pgflow._is_text(p_budget -> 'assignee', '^.{1,200}$')
                and p_budget -> 'on_breach' = '"ask"'),
        ('assignee_role', 'a text of 1 to 200 characters, beside "on_breach": "ask"',
            pgflow._is_text(p_budget -> 'assignee_role', '^.{1,200}$')
                and p_budget -> 'on_breach' = '"ask"')
    ) as k (name, expected, is_right) on k.name = m.key
    where not coalesce(k.is_right, false)
$$;
comment on function pgflow._budget_faults is
    'The members of a budget that are wrong, each with a dot before it, and what they must be.';

create or replace function pgflow._check_budget(p_budget jsonb)
returns void
language plpgsql
as $$
begin
    perform pgflow._refuse_value('budget' || f.field, f.expected, coalesce(
        p_budget #> string_to_array(nullif(ltrim(f.field, '.'), ''), '.'), p_budget)::text)
    from pgflow._budget_faults(p_budget) as f
    where p_budget is not null;
end
$$;
comment on function pgflow._check_budget is 'Refuses (PF101) what is no budget; null is none.';

-- For the definition of a flow: its own budget and those of its steps.
create or replace function pgflow._budget_faults_of(
    p_flow jsonb, p_steps jsonb, out field text, out message text
)
returns setof record
language sql
stable
as $$
    select 'definition' || o.place || '.budget' || f.field,
        format('%sbudget%s must be %s', o.name, f.field, f.expected)
    from (
        select '' as place, '' as name, p_flow -> 'budget' as budget
        union all
        select format('.steps[%s]', s.place - 1),
            format('step %s: ', coalesce(left(s.step ->> 'name', 100),
                format('[%s]', s.place - 1))),
            s.step -> 'budget'
        from jsonb_array_elements(p_steps) with ordinality as s (step, place)
    ) o
    cross join lateral pgflow._budget_faults(o.budget) as f
    where jsonb_typeof(o.budget) = 'object'
$$;
comment on function pgflow._budget_faults_of is
    'What is wrong with the budgets in the definition of a flow.';

create or replace function pgflow._store_budgets(p_version pgflow.flow_version)
returns void
language plpgsql
as $$
begin
    insert into pgflow.step_budget (project_id, flow, version, step, budget)
    select p_version.project_id, p_version.flow, p_version.version, s.step ->> 'name',
        s.step -> 'budget'
    from jsonb_array_elements(p_version.definition -> 'steps') as s (step)
    where s.step ? 'budget';
end
$$;
comment on function pgflow._store_budgets is 'Writes the budgets of the steps of a new version.';

create or replace function pgflow._give_budget(p_project text, p_run_id uuid, p_budget jsonb)
returns void
language plpgsql
as $$
declare
    v_now timestamptz := pgflow.now();
begin
    if p_budget is null then
        return;
    end if;
    insert into pgflow.budget (project_id, run_id, outer_run_id, usd, tokens, seconds, on_breach,
        assignee, assignee_role)
    select p_project, p_run_id, r.budget_run_id, b.usd, b.tokens, b.seconds,
        coalesce(b.on_breach, 'fail'), b.assignee, b.assignee_role
    from pgflow.run r
    cross join jsonb_to_record(p_budget) as b (usd numeric, tokens numeric, seconds numeric,
        on_breach text, assignee text, assignee_role text)
    where r.project_id = p_project and r.run_id = p_run_id;
    update pgflow.run r set budget_run_id = p_run_id
    where r.project_id = p_project and r.run_id = p_run_id;
    if p_budget ->> 'seconds' is not null then
        insert into pgflow.budget_due (project_id, run_id, due_at)
        values (p_project, p_run_id,
            v_now + make_interval(secs => (p_budget ->> 'seconds')::float8));
    end if;
end
$$;
comment on function pgflow._give_budget is
    'Gives a new run a budget that is checked; null is none. What is made below it later counts '
    'to it.';

create or replace function pgflow._give_step_budgets(
    p_project text, p_ids uuid[], p_flow_ids uuid[], p_steps text[]
)
returns void
language plpgsql
as $$
declare
    v_new record;
begin
    -- Few projects have any.
    if not exists (select from pgflow.step_budget b where b.project_id = p_project
                   union all
                   select from pgflow.run_step s
                   where s.project_id = p_project and s.budget is not null) then
        return;
    end if;
    for v_new in
        select m.run_id, b.budget
        from unnest(p_ids, p_flow_ids, p_steps) as m (run_id, flow_id, step)
        cross join lateral (
            select r.* from pgflow.run r
            where r.project_id = p_project and r.run_id = m.flow_id
            limit 1
        ) f
        cross join lateral (
            select from pgflow.run r
            where r.project_id = p_project and r.run_id = m.run_id
            limit 1
        ) c
        cross join lateral (
            select b.budget from pgflow.step_budget b
            where b.project_id = p_project and b.flow = f.handler and b.version = f.flow_version
              and b.step = m.step
            union all
            select s.budget from pgflow.run_step s
            where f.has_own_steps and s.project_id = p_project and s.run_id = f.run_id
              and s.step = m.step and s.budget is not null
        ) b
        order by m.run_id
    loop
        perform pgflow._give_budget(p_project, v_new.run_id, v_new.budget);
    end loop;
end
$$;
comment on function pgflow._give_step_budgets is
    'Gives new runs the budgets of the steps that they execute.';

create or replace function pgflow._budget_of(p_project text, p_run_id uuid)
returns jsonb
language plpgsql
stable
as $$
begin
    return (
        select jsonb_strip_nulls(jsonb_build_object('usd', b.usd, 'tokens', b.tokens,
            'seconds', b.seconds, 'on_breach', b.on_breach, 'assignee', b.assignee,
            'assignee_role', b.assignee_role))
        from pgflow.budget b
        where b.project_id = p_project and b.run_id = p_run_id);
end
$$;
comment on function pgflow._budget_of is
    'The bounds of a run''s own budget, as they are by now, for a run that does its work again; '
    'null if it has none.';

create or replace function pgflow._seconds_used(
    p_asked_at timestamptz, p_waited numeric, p_started_at timestamptz, p_now timestamptz
)
returns numeric
language sql
immutable
as $$
    select extract(epoch from coalesce(p_asked_at, p_now) - p_started_at) - p_waited
$$;
comment on function pgflow._seconds_used is
    'The seconds since the first start of a run that has a budget, but for those in which somebody '
    'was asked to raise it; null: it has not been started.';

-- Rows of table run are read as they were before a statement that leases them: a run that is just
-- starting has used no time.
create or replace function pgflow._budget_left(p_run pgflow.run, p_now timestamptz)
returns jsonb
language plpgsql
stable
as $$
begin
    return (
        with recursive around as (
            select b.* from pgflow.budget b
            where b.project_id = p_run.project_id and b.run_id = p_run.budget_run_id
            union all
            select b.* from around a
            join pgflow.budget b on b.project_id = a.project_id and b.run_id = a.outer_run_id
        )
        -- least() passes over nulls, so a bound that there is not stays null.
        select jsonb_build_object('usd', min(a.usd - least(a.used_usd, a.usd)),
            'tokens', min(a.tokens - least(a.used_tokens, a.tokens)),
            'seconds', min(a.seconds - least(coalesce(pgflow._seconds_used(a.asked_at,
                a.waited_seconds, r.first_started_at, p_now), 0), a.seconds)))
        from around a
        join pgflow.run r on r.project_id = a.project_id and r.run_id = a.run_id);
end
$$;
comment on function pgflow._budget_left is
    'What is left to a run of all budgets that it counts to: usd, tokens, seconds; null: unbound.';

create or replace view pgflow.budgets with (security_barrier) as
select u.*
from (
    select b.project_id, b.run_id, coalesce(r.handler, f.handler) as handler,
        coalesce(r.state, f.state) as state, b.usd, b.used_usd, b.tokens, b.used_tokens, b.seconds,
        extract(epoch from coalesce(b.asked_at, f.finished_at, pgflow.now())
            - coalesce(r.first_started_at, f.first_started_at)) - b.waited_seconds as used_seconds,
        b.on_breach, b.assignee, b.assignee_role, b.outer_run_id, b.exceeded_at, b.task_id
    from pgflow.budget b
    left join pgflow.run r on r.project_id = b.project_id and r.run_id = b.run_id
    left join pgflow.run_finished f on f.project_id = b.project_id and f.run_id = b.run_id
) u
where u.project_id = any ((select pgflow._my_projects())::text[]);
comment on view pgflow.budgets is
    'Runs that have a budget, and what they and all below them have used of it.';
comment on column pgflow.budgets.usd is 'The bound; null: there is none.';
comment on column pgflow.budgets.used_usd is 'The sum of the known costs of calls of models.';
comment on column pgflow.budgets.used_tokens is 'Input and output tokens of calls of models.';
comment on column pgflow.budgets.used_seconds is
    'Since its first start, waits included, but for those for a raise of this budget.';
comment on column pgflow.budgets.on_breach is
    'fail: the run fails with E-RUN-009; ask: it is paused, and a task asks to raise the budget.';
comment on column pgflow.budgets.outer_run_id is
    'The next run above it that has a budget; what counts here counts there too.';
comment on column pgflow.budgets.exceeded_at is 'When it was exceeded last.';
comment on column pgflow.budgets.task_id is 'The open task that asks to raise it.';
