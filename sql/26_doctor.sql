create or replace function pgflow.doctor(project text default null)
returns table (level text, "check" text, detail text, hint text)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_project text := pgflow._enter_project(doctor.project);
    v_now timestamptz := pgflow.now();
begin
    return query
    select case when count(*) = 0 then 'warn' else 'ok' end, 'workers',
        format('%s alive', count(*)), case when count(*) = 0
            then 'Start one: pgflow worker --app module:app' end
    from pgflow.worker_beat b
    where b.project_id = v_project and b.beat_at > v_now - interval '60 seconds';
    return query
    select 'fail', 'queue without worker',
        format('queue %s has %s ready runs since %s and no live worker', s.queue, s.pending,
            s.oldest_pending_at),
        'Start a worker with --queues ' || s.queue
    from pgflow.queue_stats s
    where s.project_id = v_project and s.pending > 0 and s.workers = 0;
    return query
    select 'warn', 'paused queue', format('queue %s is paused since %s by %s', q.queue, q.paused_at,
        q.paused_by),
        'pgflow resume --queue ' || q.queue
    from pgflow.queue q
    where q.project_id = v_project and q.paused_at is not null;
    return query
    select 'fail', 'dead worker holds runs',
        format('worker %s holds %s runs and last beat at %s', s.worker_id, s.running, s.beat_at),
        'They go back at the next tick of any worker; none may be running.'
    from pgflow.worker_status s
    where s.project_id = v_project and s.status = 'dead' and s.running > 0;
    return query
    select 'fail', 'lease without worker',
        format('run %s is leased to worker %s, which has no beat', r.run_id, r.worker_id),
        'It goes back at the next tick of any worker; none may be running.'
    from pgflow.lease l
    join pgflow.run r on r.project_id = v_project and r.run_id = any (l.run_ids)
        and r.worker_id = l.worker_id
    where l.project_id = v_project
      and not exists (select from pgflow.worker_beat b
                      where b.project_id = v_project and b.worker_id = l.worker_id);
    return query
    select case when not isfinite(t.last_at) then 'warn'
                when t.last_at < v_now - interval '1 minute' then 'fail' else 'ok' end, 'tick',
        case when isfinite(t.last_at) then format('duties of time last seen to at %s', t.last_at)
             else 'duties of time never seen to' end,
        case when t.last_at < v_now - interval '1 minute'
             then 'Workers do this; none may be running.' end
    from pgflow.tick t
    where t.project_id = v_project;
    return query
    select case when a.ahead < 2 then 'fail' when a.ahead < 3 then 'warn' else 'ok' end,
        'partitions', format('history has partitions for ids up to %s', a.until),
        case when a.ahead < 3 then 'Workers make them; if none runs: pgflow maintain' end
    from (select pgflow._periods_ahead(clock_timestamp()) as ahead, max(p.to_at) as until
          from pgflow.period p) a;
    return query
    select case when h.stuck_since < v_now - interval '1 hour' then 'warn' else 'ok' end,
        'retention', concat_ws('; ', 'finished runs are kept ' || coalesce('for '
            || i.retention::text, 'for ever'), 'waiting to be dropped since ' || h.stuck_since),
        case when h.stuck_since is not null
             then 'Dropping needs a moment in which nobody reads the history.' end
    from pgflow.installation i
    cross join (select min(p.expired_at) as stuck_since from pgflow.period p) h;
    return query
    select 'warn', 'held snapshot',
        format('pid %s (%s) has held a snapshot since %s', a.pid, coalesce(a.usename, '?'),
            a.xact_start),
        'Vacuum cannot remove what was deleted since; end that transaction.'
    from pg_catalog.pg_stat_activity a
    where a.backend_xmin is not null and a.xact_start < clock_timestamp() - interval '10 minutes'
      and a.backend_type = 'client backend';
    return query
    select 'warn', 'handler of a flow unknown',
        format('step %s of %s wants handler %s, which no worker has registered', d.step, d.named,
            d.handler),
        'Start a worker that has it, or one with the handler __default__.'
    from (
        select 'flow ' || d.flow as named, d.step, d.handler, d.type
        from pgflow.flow f
        join pgflow.step_definition d on d.project_id = f.project_id and d.flow = f.flow
            and d.version = f.version
        where f.project_id = v_project
        union all
        select 'run ' || r.run_id, s.step, s.handler, s.type
        from pgflow.run_step s
        join pgflow.run r on r.project_id = s.project_id and r.run_id = s.run_id
        where s.project_id = v_project and s.definition is not null and s.withdrawn_at is null
    ) d
    where d.type = 'handler'
      and not exists (select from pgflow.handler h
                      where h.project_id = v_project and h.handler in (d.handler, '__default__'));
    return query
    select 'warn', 'role without agent',
        format('flow %s has role %s, for which there is no agent', u.flow, u.role),
        format('pgflow agent define %s MODEL, or start it with bindings.', u.role)
    from pgflow._unbound_roles(v_project) as u;
    return query
    select 'warn', 'handler does not fit',
        format('%s runs of handler %s are paused: %s', count(*), r.handler, min(r.pause_reason)),
        'Deploy a worker whose handler fits them, then pgflow resume RUN.'
    from pgflow.run r
    where r.project_id = v_project and r.state = 'paused' and r.pause_reason like 'E-RUN-012%'
    group by r.handler;
    return query
    select 'warn', 'subscription stands still',
        format('subscription %s has %s events to read and acknowledged none since %s',
            s.subscription, s.behind, coalesce(s.acknowledged_at, s.created_at)),
        'Start its reader, or: pgflow subscription end ' || s.subscription
    from pgflow.subscriptions s
    where s.project_id = v_project and s.behind > 0
      and coalesce(s.acknowledged_at, s.created_at) < v_now - interval '10 minutes';
    return query
    select 'warn', 'open transaction',
        format('pid %s (%s) has written since %s and not ended', a.pid, coalesce(a.usename, '?'),
            a.xact_start),
        'Subscriptions are not told of what was done since; end that transaction.'
    from pg_catalog.pg_stat_activity a
    where a.backend_xid is not null and a.xact_start < clock_timestamp() - interval '10 minutes'
      and exists (select from pgflow.subscription s where s.project_id = v_project);
    return query
    select 'warn', 'model without price',
        format('%s calls of model %s in the last day, at a cost that nobody knows', m.calls,
            m.model),
        format('pgflow price set %s INPUT OUTPUT; until then its calls count in no budget in USD.',
            m.model)
    from pgflow._models_without_price(v_project, v_now - interval '1 day', v_now) as m;
    return query
    select 'warn', 'handler unknown at run time',
        format('%s runs of handler %s failed in the last day', count(*), f.handler),
        'Deploy a worker that has this handler, then pgflow retry RUN.'
    from pgflow.run_finished f
    where f.project_id = v_project and f.error_code = 'E-RUN-004'
        and f.finished_at > v_now - interval '1 day'
    group by f.handler;
end
$$;
comment on function pgflow.doctor is
    'Looks for what is odd in a project: level (ok, warn, fail), check, detail, hint. Example: '
    'select * from pgflow.doctor(). Raises PF502.';
