-- Who may call what. What is not listed here nobody may: private functions run as the owner, inside
-- the public ones.
revoke all on all functions in schema pgflow from public;
revoke all on all tables in schema pgflow from public;

grant usage on schema pgflow to pgflow_reader;
grant select on
    pgflow.runs, pgflow.timeline, pgflow.inbox, pgflow.task_history, pgflow.journal_entries,
    pgflow.tool_calls, pgflow.model_calls, pgflow.queue_stats,
    pgflow.worker_status, pgflow.flows, pgflow.flow_steps, pgflow.subscriptions, pgflow.prices,
    pgflow.budgets, pgflow.schemas, pgflow.artifacts, pgflow.step_types, pgflow.agents,
    pgflow.state,
    pgflow.move, pgflow.error_code, pgflow.refusal, pgflow.event_type, pgflow.task_policy
to pgflow_reader;
grant execute on function
    pgflow._my_projects, pgflow._sha256, pgflow._position, pgflow.now, pgflow._test_now,
    pgflow.this_project, pgflow.doctor, pgflow.watch, pgflow.watch_inbox, pgflow.result,
    pgflow.history, pgflow.usage_by_model, pgflow.report, pgflow.context, pgflow.artifact_content
to pgflow_reader;

grant execute on function
    pgflow.enqueue, pgflow.enqueue_many, pgflow.cancel, pgflow.pause, pgflow.resume, pgflow.retry,
    pgflow.emit, pgflow.signal, pgflow.signal_many, pgflow.resolve_tool, pgflow.fail_tool,
    pgflow.fork, pgflow.set_breakpoint, pgflow.clear_breakpoint, pgflow.define_flow, pgflow.start,
    pgflow.add_step,
    pgflow.subscribe, pgflow.next_events, pgflow.acknowledge, pgflow.release_events,
    pgflow.unsubscribe, pgflow.define_schema, pgflow.register_step_type,
    pgflow.unregister_step_type, pgflow.define_agent
to pgflow_client;

grant execute on function
    pgflow.approve, pgflow.reject, pgflow.abort, pgflow.answer, pgflow.inject_input,
    pgflow.claim_task,
    pgflow.release_task, pgflow.delegate, pgflow.comment_task
to pgflow_approver;

grant execute on function
    pgflow.register_worker, pgflow.acquire, pgflow.beat, pgflow.complete, pgflow.fail, pgflow.park,
    pgflow.release, pgflow.record_step, pgflow.record_usage, pgflow.record_artifact,
    pgflow.stop_worker, pgflow.tick, pgflow.reap, pgflow.maintain
to pgflow_worker;

grant execute on function
    pgflow.create_project, pgflow.add_member, pgflow.remove_member, pgflow.define_queue,
    pgflow.pause_queue, pgflow.resume_queue, pgflow.set_retention, pgflow.define_price,
    pgflow.define_reducer
to pgflow_admin;
