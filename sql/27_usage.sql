-- The ledger of model calls: one row a call, and what it cost added to its run, in one transaction.

create or replace function pgflow._wrong_field(p_call jsonb)
returns text
language plpgsql
immutable
as $$
declare
    v_wrong text;
begin
    if jsonb_typeof(p_call) is distinct from 'object' then
        return 'a call must be an object';
    end if;
    select f.key || ' ' || case when k.kind is null then 'is no field of a call'
                                else 'must be ' || k.must end
    into v_wrong
    from (select * from jsonb_each(p_call) union all select 'call_key', null
          where not p_call ? 'call_key') as f (key, value)
    left join (
        select u.field, g.kind, g.must from (values
            ('key', 'a text of 1 to 600 characters', '{call_key}'::text[]),
            ('text', 'a text of 1 to 500 characters', '{step,actor,model,role,thread_id,error_code,
                                                        request_id}'),
            ('status', 'ok or failed', '{status}'),
            ('count', 'a whole number from 0 to 2147483647', '{turn_index,input_tokens,
                output_tokens,cached_tokens,reasoning_tokens,latency_ms}'),
            ('cost', 'a number from 0 to 1000000000, or a text of digits that is one',
                '{cost_usd_input,cost_usd_output,cost_usd_total}')) as g (kind, must, fields)
        cross join lateral unnest(g.fields) as u (field)
    ) k on k.field = f.key
    where k.kind is null
       or case when coalesce(jsonb_typeof(f.value), 'null') = 'null' then k.kind = 'key'
               when k.kind = 'key' then jsonb_typeof(f.value) <> 'string'
                   or char_length(f.value #>> '{}') not between 1 and 600
               when k.kind = 'text' then jsonb_typeof(f.value) <> 'string'
                   or char_length(f.value #>> '{}') not between 1 and 500
               when k.kind = 'status' then f.value not in ('"ok"', '"failed"')
               when k.kind = 'cost' and jsonb_typeof(f.value) = 'string'
                   then f.value #>> '{}' !~ '^(\d{1,9}(\.\d{1,50})?|10{9}(\.0{1,50})?)$'
               when jsonb_typeof(f.value) <> 'number' then true
               when k.kind = 'count' then (f.value #>> '{}')::numeric not between 0 and 2147483647
                   or (f.value #>> '{}')::numeric <> trunc((f.value #>> '{}')::numeric)
               else (f.value #>> '{}')::numeric not between 0 and 1000000000 end
    order by f.key collate "C"
    limit 1;
    return v_wrong;
end
$$;
comment on function pgflow._wrong_field is
    'The first field of a call of a model that is wrong, and how it must be; null: all are right.';

create or replace function pgflow._add_usage(p_run pgflow.run, p_call jsonb)
returns void
language plpgsql
as $$
declare
    v_usage pgflow.usage := jsonb_populate_record(null::pgflow.usage, p_call);
begin
    v_usage.project_id := p_run.project_id;
    v_usage.run_id := p_run.run_id;
    v_usage.attempt := p_run.attempt;
    v_usage.lease_no := p_run.lease_no;
    v_usage.round := p_run.round;
    v_usage.at := pgflow.now();
    v_usage.status := coalesce(v_usage.status,
        case when v_usage.error_code is null then 'ok' else 'failed' end);
    v_usage := pgflow._priced(v_usage);
    v_usage.cost_usd_total := coalesce(v_usage.cost_usd_total,
        v_usage.cost_usd_input + v_usage.cost_usd_output);
    insert into pgflow.usage select v_usage.*;
    if v_usage.cost_usd_total is not null then
        update pgflow.run r
        set cost_usd = pgflow._cost(r.cost_usd, v_usage.cost_usd_total)
        where r.project_id = p_run.project_id and r.run_id = p_run.run_id;
    end if;
end
$$;
comment on function pgflow._add_usage is
    'Writes a call of a model that is right in all fields, and adds its cost to its run, which the '
    'caller holds.';

create or replace function pgflow._record_usage(
    p_project text, p_run_ids uuid[], p_lease_nos integer[], p_calls jsonb,
    p_family_is_held boolean
)
returns setof pgflow.outcome_v1
language plpgsql
as $$
declare
    v_run pgflow.run;
    v_given record;
    v_spenders uuid[] := '{}';
    v_spent_keys text[] := '{}';
begin
    for v_given in
        select g.run_id, g.lease_no, g.call, g.call ->> 'call_key' as key,
            pgflow._wrong_field(g.call) as wrong
        from rows from (unnest(p_run_ids), unnest(p_lease_nos), jsonb_array_elements(p_calls))
            with ordinality as g (run_id, lease_no, call, n)
        order by g.run_id, g.n
    loop
        if v_given.wrong is not null then
            return query select v_given.run_id, 'refused', null::text, v_given.key, v_given.wrong;
            continue;
        end if;
        v_run := pgflow._held(p_project, v_given.run_id, v_given.lease_no);
        -- A later statement than the lock: it sees what the last holder wrote.
        if exists (select from pgflow.usage u
                   where u.project_id = p_project and u.run_id = v_given.run_id
                     and u.call_key = v_given.key) then
            return query select v_given.run_id, 'already', null::text, v_given.key, null::text;
        elsif v_run.run_id is null then
            return query select v_given.run_id, 'lost', null::text, v_given.key, null::text;
        else
            perform pgflow._add_usage(v_run, v_given.call);
            if v_run.budget_run_id is not null then
                v_spenders := v_spenders || v_run.run_id;
                v_spent_keys := v_spent_keys || v_given.key;
            end if;
        end if;
    end loop;
    if v_spenders <> '{}' then
        perform pgflow._spend(p_project, v_spenders, v_spent_keys, p_family_is_held);
    end if;
end
$$;
comment on function pgflow._record_usage is
    'Records calls of models, in the order of their runs, and counts them to budgets; see '
    'record_usage and _spend.';

create or replace function pgflow.record_usage(
    run_ids uuid[], lease_nos integer[], calls jsonb, project text default null
)
returns setof pgflow.outcome_v1
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_project text := pgflow._enter_project(record_usage.project);
    v_spenders uuid[];
begin
    perform pgflow._check_batch(record_usage.run_ids, record_usage.lease_nos, array[
        case when jsonb_typeof(record_usage.calls) = 'array'
             then jsonb_array_length(record_usage.calls) else 0 end]);
    v_spenders := pgflow._spenders(v_project, record_usage.run_ids);
    if v_spenders = '{}' then
        return query select l.* from pgflow._record_usage(v_project, record_usage.run_ids,
            record_usage.lease_nos, record_usage.calls, false) as l;
        return;
    end if;
    return query select l.* from unnest(pgflow._record_within_budgets(v_project,
        record_usage.run_ids, record_usage.lease_nos, record_usage.calls)) as l;
    return query select l.* from pgflow._tell_budgets(v_project, v_spenders) as l;
end
$$;
comment on function pgflow.record_usage is
    'Records calls of models, failed ones too, and adds what they cost to their runs; several runs '
    'and several calls of one run at once. Each element of calls is an object of call_key and '
    'fields of view model_calls (but version, attempt, lease_no, at); its call_key is told once '
    'in the life of a run, whatever the lease. A cost that is not told the prices make. Returns a '
    'line, the call_key in code, for those not simply done: already, lost, refused (detail names '
    'the field); and a line `budget` for each run that counts to one, with its state by now and in '
    'detail what is left (a json object of usd, tokens, seconds; null: unbound). '
    'Example: select * from pgflow.record_usage(''{...}'', ''{1}'', ''[{"call_key": "draft/1", '
    '"model": "m-1", "input_tokens": 900, "cost_usd_total": 0.02}]''). Raises PF101, PF502.';

create or replace view pgflow.model_calls with (security_barrier) as
select u.project_id, u.run_id, u.call_key, u.step, (
        select max(s.version)
        from (
            select r.parent_run_id, r.step from pgflow.run r
            where r.project_id = u.project_id and r.run_id = u.run_id
            union all
            select f.parent_run_id, f.step from pgflow.run_finished f
            where f.project_id = u.project_id and f.run_id = u.run_id
        ) o
        join pgflow.flow_step s on s.project_id = u.project_id and s.run_id = o.parent_run_id
            and s.step = o.step and s.child_run_id = u.run_id
    ) as version, u.attempt, u.lease_no, u.at, u.actor, u.model,
    u.role, u.thread_id, u.turn_index, u.input_tokens, u.output_tokens, u.cached_tokens,
    u.reasoning_tokens, u.cost_usd_input, u.cost_usd_output, u.cost_usd_total, u.latency_ms,
    u.status, u.error_code, u.request_id
from pgflow.usage u
where u.project_id = any ((select pgflow._my_projects())::text[]);
comment on view pgflow.model_calls is
    'What handlers said of their calls of models. runs.cost_usd has the sum of each run.';
comment on column pgflow.model_calls.step is
    'The key of the step in which it was called; null outside of steps.';
comment on column pgflow.model_calls.version is
    'Of the run of a step of a flow: which version of the step it is; it grows with each rollback.';
comment on column pgflow.model_calls.attempt is 'How many executions had failed before.';
comment on column pgflow.model_calls.at is 'When it was recorded, shortly after the call.';
comment on column pgflow.model_calls.actor is 'Which agent called, as the handler names it.';
comment on column pgflow.model_calls.role is 'As what it was called, as the handler names it.';
comment on column pgflow.model_calls.thread_id is 'The conversation, as the handler names it.';
comment on column pgflow.model_calls.cost_usd_total is
    'As it was told, else by the price of the model. Null: unknown, and in no sum.';
comment on column pgflow.model_calls.status is 'ok or failed; a failed call may cost, too.';
comment on column pgflow.model_calls.request_id is 'What the provider calls the call.';
