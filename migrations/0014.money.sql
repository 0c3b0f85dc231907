-- What calls of models cost, and how much a run and all below it may spend. A run names the budget
-- that its calls count to; those without one pay a look at a column that is null.
set local role pgflow_owner;

create table pgflow.price (
    project_id text collate "C" not null,
    model text collate "C" not null,
    valid_from timestamptz not null,
    input_per_1k_usd numeric not null,
    output_per_1k_usd numeric not null,
    cached_per_1k_usd numeric,
    defined_at timestamptz not null,
    defined_by text not null,
    constraint price_pkey primary key (project_id, model, valid_from),
    constraint price_project_fkey foreign key (project_id) references pgflow.project (project_id),
    constraint model_is_at_most_500_characters check (char_length(model) between 1 and 500),
    constraint prices_are_from_0_to_100 check (
        least(input_per_1k_usd, output_per_1k_usd, cached_per_1k_usd) >= 0
        and greatest(input_per_1k_usd, output_per_1k_usd, cached_per_1k_usd) <= 100)
);
comment on table pgflow.price is
    'What a thousand tokens of a model cost since when. View prices shows them.';

alter table pgflow.run add column budget_run_id uuid;
comment on column pgflow.run.budget_run_id is
    'The run whose budget its calls of models count to: itself, or the next above it that has one.';

create table pgflow.budget (
    project_id text collate "C" not null,
    run_id uuid not null,
    outer_run_id uuid,
    usd numeric,
    tokens numeric,
    seconds numeric,
    used_usd numeric not null default 0,
    used_tokens numeric not null default 0,
    waited_seconds numeric not null default 0,
    on_breach text collate "C" not null default 'fail',
    assignee text,
    assignee_role text,
    exceeded_at timestamptz,
    asked_at timestamptz,
    task_id uuid,
    times_asked integer not null default 0,
    constraint budget_pkey primary key (project_id, run_id),
    constraint a_budget_bounds_something check (num_nonnulls(usd, tokens, seconds) > 0),
    constraint on_breach_is_known check (on_breach in ('fail', 'ask')),
    constraint asked_at_iff_there_is_a_task check ((asked_at is null) = (task_id is null))
) partition by range (run_id);
comment on table pgflow.budget is
    'How much a run and all below it may spend, and what they have spent. View budgets shows them.';
comment on column pgflow.budget.outer_run_id is
    'The next run above it that has a budget, to which its calls count too.';
comment on column pgflow.budget.waited_seconds is
    'For how long it stood still because somebody was asked to raise it.';
comment on column pgflow.budget.exceeded_at is 'When it was exceeded last.';
comment on column pgflow.budget.task_id is
    'The open task that asks to raise it; nothing of the run and below it is executed meanwhile.';

-- There is nothing to analyze in a new installation.
insert into pgflow.upkeep (duty, next_at)
values ('analyze budget', clock_timestamp() + interval '1 hour');

create table pgflow.budget_due (
    project_id text collate "C" not null,
    run_id uuid not null,
    due_at timestamptz not null,
    constraint budget_due_pkey primary key (project_id, run_id)
);
create index budget_is_due on pgflow.budget_due (project_id, due_at);
comment on table pgflow.budget_due is
    'When the tick looks whether a budget''s seconds are over, at the earliest: nobody writes here '
    'when a run is started, so it looks again if they are not.';

create table pgflow.step_budget (
    project_id text collate "C" not null,
    flow text collate "C" not null,
    version integer not null,
    step text collate "C" not null,
    budget jsonb not null,
    constraint step_budget_pkey primary key (project_id, flow, version, step),
    constraint step_budget_step_fkey foreign key (project_id, flow, version, step)
        references pgflow.step_definition (project_id, flow, version, step)
);
comment on table pgflow.step_budget is
    'The budgets of steps, which few have: to look whether there are any is cheap.';

insert into pgflow.error_code (error_code, class, description) values
    ('E-RUN-009', 'human_required', 'The run, or what is below it, exceeded its budget.');

insert into pgflow.event_type (type, description) values
    ('budget.exceeded', 'More was spent than the budget has; the payload says of what.'),
    ('budget.raised', 'A person raised the budget; the payload has the new bounds.');
