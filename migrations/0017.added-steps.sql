-- Steps that are added to a flow's run while it is under way. A run keeps the version that it
-- began with; what is different in this run alone has rows of its own, which stand before those of
-- the version.
set local role pgflow_owner;

-- Not partitioned: few runs have any, and each look-up would pay for every partition.
create table pgflow.run_step (
    like pgflow.step_definition including constraints including comments,
    run_id uuid not null,
    definition jsonb,
    needed_by text[] collate "C",
    budget jsonb,
    super_step integer,
    added_in text collate "C",
    added_element integer,
    withdrawn_at timestamptz,
    added_at timestamptz,
    added_by text,
    constraint run_step_pkey primary key (project_id, run_id, step),
    constraint added_iff_it_says_how check (
        num_nonnulls(definition, needed_by, super_step, added_at, added_by) in (0, 5)),
    constraint a_step_adds_as_a_whole_or_as_an_element check (
        num_nonnulls(added_in, added_element) in (0, 2))
);
comment on table pgflow.run_step is
    'Steps of single runs of flows: those that were added, and those of the version that need one '
    'of these, or are needed by one, as they are since.';
comment on column pgflow.run_step.definition is
    'What add_step was given, without what is said by default; null: a step of the version.';
comment on column pgflow.run_step.needed_by is 'The steps that were to need it.';
comment on column pgflow.run_step.budget is 'How much it may spend, if it was added.';
comment on column pgflow.run_step.super_step is
    'How far the flow had come when it was added; -1: it was taken over from the run that this one '
    'retries.';

comment on column pgflow.run_step.added_in is
    'The step whose handler added it: it counts as long as that does.';
comment on column pgflow.run_step.added_element is
    'Which element of that step added it, if it is done for each; else 0.';
comment on column pgflow.run_step.withdrawn_at is
    'When that step, or one that this one needs, counted no more.';

-- Whether there are any is asked whenever steps begin.
create index added_step_has_a_budget on pgflow.run_step (project_id) where budget is not null;

alter table pgflow.run add column has_own_steps boolean not null default false;
comment on column pgflow.run.has_own_steps is
    'Whether there are rows of run_step that stand before those of the flow''s version.';

insert into pgflow.event_type (type, description) values
    ('step.added', 'A step was added to the flow while it was under way.');
