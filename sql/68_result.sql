-- What became of a run, for whoever waits for it: look-ups by key with plans that are kept. View
-- runs says it too, but is planned anew by each who asks, which takes longer than most runs.

create or replace function pgflow._why_paused(p_run pgflow.run)
returns jsonb
language plpgsql
stable
as $$
begin
    return jsonb_build_object('reason', p_run.pause_reason) || coalesce((
        select jsonb_build_object('step', t.key, 'payload', t.payload)
        from pgflow.task t
        where t.project_id = p_run.project_id and t.run_id = p_run.run_id and t.state = 'open'
          and t.kind in ('interrupt', 'breakpoint')
        order by t.created_at, t.key
        limit 1), '{}');
end
$$;
comment on function pgflow._why_paused is
    'Why a run is paused and, where its handler stopped at a call, that step and its payload.';

create or replace function pgflow.result(run_id uuid, project text default null)
returns pgflow.result_v1
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_project text := pgflow._enter_project(result.project);
    v_result pgflow.result_v1;
begin
    select r.run_id, r.handler, r.state, null::jsonb, null::text, null::text, r.last_error,
        case when r.state = 'paused' then pgflow._why_paused(r) end, null::timestamptz,
        r.super_step, null::uuid
    into v_result
    from pgflow.run r
    where r.project_id = v_project and r.run_id = result.run_id;
    if not found then
        select f.run_id, f.handler, f.state, f.output, f.error_code, f.error_detail, f.last_error,
            null::jsonb, f.finished_at, f.super_step, case when f.kind = 'flow' then f.run_id end
        into v_result
        from pgflow.run_finished f
        where f.project_id = v_project and f.run_id = result.run_id;
        if not found then
            perform pgflow._refuse_gone(v_project, result.run_id, '');
        end if;
    end if;
    return v_result;
end
$$;
comment on function pgflow.result is
    'What became of a run so far: its state and output, or why it failed, or why it is paused. '
    'Example: select state, output from pgflow.result(''...''). Raises PF102, PF502.';
