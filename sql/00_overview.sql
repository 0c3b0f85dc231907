-- pgflow's engine. Read the files in the order of their numbers; each is one concept.
--
-- Nouns. A project is a tenant. A queue is an entry point. A run is one execution of a handler:
-- while it is live it is a row of table run, at its end it moves to run_finished. A lease is (run,
-- lease_no, worker). The journal is what a run has learned, the timeline what happened to it, a
-- task what a person is asked. A flow is a definition of steps that need each other; its run is
-- nobody's lease, and each of its steps is a child run. It may have a state: values in channels, to
-- which steps write. A gate lets what a step has done pass on when a person approves it. An agent
-- is what the role of a step is bound to: a model with its config. A subscription follows the
-- events of all runs of a project. A budget bounds what a run and all below it spend.
--
-- States. scheduled pending running waiting_tool waiting_approval waiting_event paused are live,
-- completed failed cancelled timeout are the ends. Table move has the legal moves; 02_guards
-- refuses all others to everybody.
--
-- Who may call what. 90_grants has the list: readers the views and watch, clients what starts and
-- steers runs, approvers what decides tasks, workers the worker's verbs, admins all of it. Each
-- public function takes `project` last and begins with _enter_project(), which refuses whoever is
-- not a member. Private functions begin with _ and take p_project first; nobody is granted them.
--
-- Plans. In public functions, and all that they call, plans are made once in a session, whatever
-- the arguments: with partitions in it the planner likes to make one for each call, which takes
-- longer than most calls. _take() is the exception: its plan depends on the limit.
--
-- Time is now(), the database's clock, read once per verb. Ownership is lease_no: it grows at every
-- lease, each write of a worker names it, and a write that names an old one changes nothing.
--
-- Lock order: (1) roots of the trees touched, sorted; (2) runs, sorted by run_id; (3) tasks, by
-- id; (4) budgets, by run_id; queues and slots, sorted; (5) inserts into journal, event. A
-- worker's beat comes before its idle flags and its own row; reap has the beat before the runs,
-- and skips those that are locked. A verb that starts at a task reads it unlocked, locks the run,
-- then the task, and looks again. Claim and reap skip what is locked. Upkeep (28_history,
-- 29_retention) is under a lock of its own and waits for no other longer than 100 ms. A reader of
-- events has its subscription before all of these; nobody else locks one.
--
-- Refusals. Table refusal has the SQLSTATEs; each is raised with message, detail and hint by
-- _refuse(). A refused argument is named in the error's column field.

create or replace function pgflow._refuse(
    p_sqlstate text, p_message text, p_detail text default '', p_hint text default '',
    p_field text default ''
)
returns void
language plpgsql
as $$
begin
    raise exception using
        errcode = p_sqlstate, message = p_message, detail = p_detail, hint = p_hint,
        column = p_field, schema = 'pgflow';
end
$$;
comment on function pgflow._refuse is 'Raises one of the refusals of table refusal.';

create or replace function pgflow._refuse_value(p_field text, p_expected text, p_given text)
returns void
language plpgsql
as $$
begin
    perform pgflow._refuse('PF101', format('%s must be %s', p_field, p_expected),
        format('given: %s', coalesce(left(p_given, 200), 'null')),
        'Nothing was changed; call again with a value in range.', p_field);
end
$$;
comment on function pgflow._refuse_value is
    'Raises PF101: the field, what was expected, what was given.';
