-- Counting what calls of models took towards budgets, in the transaction that records them.
--
-- Rows of budgets come after those of runs in the order of locks. But who finds a budget exceeded
-- has to end or pause a whole family, whose runs come before the one that it holds. So that happens
-- in two goes: the first is undone when it exceeds a budget, and the second holds the family from
-- the beginning. Only that one costs as much as the family is large.

create or replace function pgflow._spenders(p_project text, p_run_ids uuid[])
returns uuid[]
language plpgsql
stable
set enable_seqscan = off
set jit = off
set enable_bitmapscan = off
as $$
begin
    return array(
        select distinct u.run_id
        from unnest(p_run_ids) as u (run_id)
        cross join lateral (
            select from pgflow.run r
            where r.project_id = p_project and r.run_id = u.run_id and r.budget_run_id is not null
            limit 1
        ) r
        order by u.run_id);
end
$$;
comment on function pgflow._spenders is
    'The live ones among some runs whose calls of models count to a budget.';

create or replace function pgflow._budgets_around(p_project text, p_run_ids uuid[])
returns uuid[]
language plpgsql
stable
as $$
begin
    return array(
        with recursive around as (
            select r.budget_run_id as run_id from pgflow.run r
            where r.project_id = p_project and r.run_id = any (p_run_ids)
              and r.budget_run_id is not null
            union
            select b.outer_run_id
            from around a
            join pgflow.budget b on b.project_id = p_project and b.run_id = a.run_id
            where b.outer_run_id is not null
        )
        select a.run_id from around a order by a.run_id);
end
$$;
comment on function pgflow._budgets_around is
    'The budgets, by their runs, that some live runs count to.';

create or replace function pgflow._spend(
    p_project text, p_run_ids uuid[], p_keys text[], p_family_is_held boolean
)
returns void
language plpgsql
as $$
declare
    v_run_ids uuid[];
    v_usds numeric[];
    v_tokens numeric[];
    v_exceeded uuid[];
    v_run_id uuid;
begin
    with recursive told as (
        select r.budget_run_id as run_id, coalesce(c.cost_usd_total, 0) as usd,
            coalesce(c.input_tokens, 0) + coalesce(c.output_tokens, 0)::numeric as tokens
        from unnest(p_run_ids, p_keys) as u (run_id, key)
        cross join lateral (
            select r.budget_run_id from pgflow.run r
            where r.project_id = p_project and r.run_id = u.run_id
            limit 1
        ) r
        cross join lateral (
            select c.* from pgflow.usage c
            where c.project_id = p_project and c.run_id = u.run_id and c.call_key = u.key
            limit 1
        ) c
    ),
    counted as (
        select t.run_id, sum(t.usd) as usd, sum(t.tokens) as tokens from told t group by t.run_id
        union all
        select b.outer_run_id, c.usd, c.tokens
        from counted c
        join pgflow.budget b on b.project_id = p_project and b.run_id = c.run_id
        where b.outer_run_id is not null
    )
    select array_agg(s.run_id order by s.run_id), array_agg(s.usd order by s.run_id),
        array_agg(s.tokens order by s.run_id)
    into v_run_ids, v_usds, v_tokens
    from (select c.run_id, sum(c.usd) as usd, sum(c.tokens) as tokens
          from counted c group by c.run_id) s;
    perform from pgflow.budget b
    where b.project_id = p_project and b.run_id = any (v_run_ids)
    order by b.run_id
    for update;
    with spent as (
        update pgflow.budget b
        set used_usd = b.used_usd + u.usd, used_tokens = b.used_tokens + u.tokens
        from unnest(v_run_ids, v_usds, v_tokens) as u (run_id, usd, tokens)
        where b.project_id = p_project and b.run_id = u.run_id
        returning b.*
    )
    select array_agg(s.run_id order by s.run_id) into v_exceeded
    from spent s
    where s.task_id is null and (s.used_usd > s.usd or s.used_tokens > s.tokens);
    if v_exceeded is not null and not p_family_is_held then
        raise exception using errcode = 'XBUDG', message = 'a budget is exceeded';
    end if;
    foreach v_run_id in array coalesce(v_exceeded, '{}') loop
        perform pgflow._exceed(p_project, v_run_id);
    end loop;
end
$$;
comment on function pgflow._spend is
    'Adds what recorded calls of held runs took to all budgets that they count to, and sees to '
    'those that it exceeds. Raises XBUDG instead if the caller does not hold the families.';

create or replace function pgflow._record_within_budgets(
    p_project text, p_run_ids uuid[], p_lease_nos integer[], p_calls jsonb
)
returns pgflow.outcome_v1[]
language plpgsql
as $$
begin
    begin
        return array(
            select l from pgflow._record_usage(p_project, p_run_ids, p_lease_nos, p_calls, false)
                as l);
    exception
        when sqlstate 'XBUDG' then null;  -- undone, its locks too
    end;
    perform pgflow._lock_family(p_project,
        p_run_ids || pgflow._budgets_around(p_project, p_run_ids));
    return array(
        select l from pgflow._record_usage(p_project, p_run_ids, p_lease_nos, p_calls, true) as l);
end
$$;
comment on function pgflow._record_within_budgets is
    'Records calls of models of runs of which some count to a budget; returns the lines.';

create or replace function pgflow._tell_budgets(p_project text, p_run_ids uuid[])
returns setof pgflow.outcome_v1
language plpgsql
as $$
declare
    v_now timestamptz := pgflow.now();
begin
    return query
    select u.run_id, 'budget', coalesce((r.run).state, f.state), f.error_code,
        case when (r.run).run_id is not null then pgflow._budget_left(r.run, v_now) end::text
    from unnest(p_run_ids) as u (run_id)
    left join lateral (
        select l as run from pgflow.run l
        where l.project_id = p_project and l.run_id = u.run_id
        limit 1
    ) r on true
    left join lateral (
        select f.state, f.error_code from pgflow.run_finished f
        where f.project_id = p_project and f.run_id = u.run_id
        limit 1
    ) f on true;
end
$$;
comment on function pgflow._tell_budgets is
    'A line for each of some runs: its state by now, and in detail what its budgets have left.';
