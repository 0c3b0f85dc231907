-- Abort: whoever may decide a task may end all that it is asked for. No on_reject and no on_failure
-- has a say in that.

create or replace function pgflow._run_to_abort(p_project text, p_run_id uuid)
returns uuid
language plpgsql
stable
as $$
declare
    v_run_id uuid := p_run_id;
    v_flow_id uuid;
begin
    loop
        select r.parent_run_id into v_flow_id from pgflow.run r
        where r.project_id = p_project and r.run_id = v_run_id and r.step is not null;
        exit when not found;
        v_run_id := v_flow_id;
    end loop;
    return v_run_id;
end
$$;
comment on function pgflow._run_to_abort is
    'The flow that a run is a step of, the outermost if that is a step too; else the run itself.';

create or replace function pgflow._lock_to_abort(p_task pgflow.task)
returns void
language plpgsql
as $$
begin
    perform pgflow._lock_family(p_task.project_id,
        array[pgflow._run_to_abort(p_task.project_id, p_task.run_id)]);
end
$$;
comment on function pgflow._lock_to_abort is
    'Locks the flow, with all of its steps, or the run with its family, that a task can abort.';

create or replace function pgflow._end_aborted(
    p_run pgflow.run, p_now timestamptz, p_task pgflow.task
)
returns void
language plpgsql
as $$
begin
    perform pgflow._append_event(p_run, 'task.resolved', p_now, jsonb_build_object(
        'task_id', p_task.task_id, 'key', p_task.key, 'action', p_task.state,
        'comment', p_task.comment, 'by', p_task.decided_by));
    perform pgflow._end_from_outside(
        pgflow._locked(p_run.project_id, pgflow._run_to_abort(p_run.project_id, p_run.run_id)),
        'cancelled', 'E-RUN-013',
        format('%s aborted: %s', p_task.title, coalesce(p_task.comment, 'no comment')),
        p_task.decided_by);
end
$$;
comment on function pgflow._end_aborted is
    'Ends the flow, or the run, whose task was aborted. The caller holds its family.';

create or replace function pgflow.abort(
    task_id uuid, comment text default null, as_user text default null, project text default null
)
returns pgflow.decision_v1
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_project text := pgflow._enter_project(abort.project);
    v_task pgflow.task := pgflow._found_task(v_project, abort.task_id, abort.as_user);
begin
    perform pgflow._check_comment(abort.comment);
    return pgflow._decide(v_task, 'aborted', abort.comment, null, abort.as_user);
end
$$;
comment on function pgflow.abort is
    'Ends all that a task is asked for: its flow or, if no step asked, its run is cancelled with '
    'E-RUN-013, whatever on_reject and on_failure say. Whoever may decide the task may do so, '
    'alone where several have to approve. Again is a no-op that returns the first decision. '
    'Example: select pgflow.abort(''...'', ''we were sold''). Raises PF101, PF103, PF202, PF402, '
    'PF501, PF502.';
