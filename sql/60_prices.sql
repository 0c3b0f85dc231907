-- Prices: what a thousand tokens of a model cost, each since some time. They make the cost of a
-- call that was recorded without one; what was recorded keeps its cost whatever prices do.

create or replace function pgflow.define_price(
    model text, input_per_1k_usd numeric, output_per_1k_usd numeric,
    valid_from timestamptz default null, cached_per_1k_usd numeric default null,
    project text default null
)
returns pgflow.price
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $$
declare
    v_project text := pgflow._enter_project(define_price.project);
    v_now timestamptz := pgflow.now();
    v_price pgflow.price;
begin
    if coalesce(char_length(define_price.model), 0) not between 1 and 500 then
        perform pgflow._refuse_value('model', '1 to 500 characters', define_price.model);
    elsif define_price.valid_from not between '1900-01-01' and '2200-01-01' then
        perform pgflow._refuse_value('valid_from', 'between the years 1900 and 2200',
            define_price.valid_from::text);
    end if;
    perform pgflow._refuse_value(p.field, 'a number from 0 to 100', p.usd::text)
    from (values ('input_per_1k_usd', coalesce(define_price.input_per_1k_usd, -1)),
        ('output_per_1k_usd', coalesce(define_price.output_per_1k_usd, -1)),
        ('cached_per_1k_usd', define_price.cached_per_1k_usd)) as p (field, usd)
    where p.usd not between 0 and 100;
    insert into pgflow.price as p (project_id, model, valid_from, input_per_1k_usd,
        output_per_1k_usd, cached_per_1k_usd, defined_at, defined_by)
    values (v_project, define_price.model, coalesce(define_price.valid_from, v_now),
        define_price.input_per_1k_usd, define_price.output_per_1k_usd,
        define_price.cached_per_1k_usd, v_now, pgflow._actor())
    on conflict on constraint price_pkey do update
    set input_per_1k_usd = excluded.input_per_1k_usd,
        output_per_1k_usd = excluded.output_per_1k_usd,
        cached_per_1k_usd = excluded.cached_per_1k_usd, defined_at = excluded.defined_at,
        defined_by = excluded.defined_by
    where (p.input_per_1k_usd, p.output_per_1k_usd, p.cached_per_1k_usd) is distinct from
        (excluded.input_per_1k_usd, excluded.output_per_1k_usd, excluded.cached_per_1k_usd);
    select p.* into v_price from pgflow.price p
    where p.project_id = v_project and p.model = define_price.model
      and p.valid_from = coalesce(define_price.valid_from, v_now);
    return v_price;
end
$$;
comment on function pgflow.define_price is
    'Says what a thousand tokens of a model cost from a time on, without one from now: calls that '
    'are recorded without a cost get theirs by it. cached_per_1k_usd is for the cached ones among '
    'the input tokens, which else cost what the others do. A price for the same time replaces the '
    'one that was there; what was recorded before keeps its cost. Example: select '
    'pgflow.define_price(''m-1'', 0.003, 0.015, ''2026-01-01''). Raises PF101, PF502.';

-- Of a call that tells neither side's tokens nothing is known. One side alone means that the other
-- had none: an embedding has no output. Cached tokens are among the input, reasoning ones among the
-- output. Multiplied by 0.001, because a division would round.
create or replace function pgflow._priced(p_usage pgflow.usage)
returns pgflow.usage
language plpgsql
stable
as $$
declare
    v_usage pgflow.usage := p_usage;
    v_price pgflow.price;
    v_cached numeric := coalesce(p_usage.cached_tokens, 0);
begin
    if v_usage.model is null or v_usage.cost_usd_total is not null
        or num_nonnulls(v_usage.input_tokens, v_usage.output_tokens) = 0
        or num_nulls(v_usage.cost_usd_input, v_usage.cost_usd_output) = 0
    then
        return v_usage;
    end if;
    select p.* into v_price from pgflow.price p
    where p.project_id = v_usage.project_id and p.model = v_usage.model
      and p.valid_from <= v_usage.at
    order by p.valid_from desc
    limit 1;
    if found then
        v_usage.cost_usd_input := coalesce(v_usage.cost_usd_input, trim_scale(0.001 * (
            greatest(coalesce(v_usage.input_tokens, 0) - v_cached, 0) * v_price.input_per_1k_usd
            + v_cached * coalesce(v_price.cached_per_1k_usd, v_price.input_per_1k_usd))));
        v_usage.cost_usd_output := coalesce(v_usage.cost_usd_output, trim_scale(0.001
            * coalesce(v_usage.output_tokens, 0) * v_price.output_per_1k_usd));
    end if;
    return v_usage;
end
$$;
comment on function pgflow._priced is
    'A call of a model with the costs that it was told without, by the price of its time; as it '
    'is, if there is none.';

create or replace function pgflow._models_without_price(
    p_project text, p_since timestamptz, p_now timestamptz, out model text, out calls bigint
)
returns setof record
language sql
stable
as $$
    select u.model, count(*)
    from pgflow.usage u
    where u.project_id = p_project and u.at > p_since and u.model is not null
      and u.cost_usd_total is null and num_nonnulls(u.input_tokens, u.output_tokens) > 0
      and not exists (select from pgflow.price p
                      where p.project_id = p_project and p.model = u.model
                        and p.valid_from <= p_now)
    group by u.model
    order by u.model
$$;
comment on function pgflow._models_without_price is
    'Models that were called since a time at a cost that nobody knows, and still have no price.';

create or replace view pgflow.prices with (security_barrier) as
select p.project_id, p.model, p.valid_from,
    lead(p.valid_from) over (partition by p.project_id, p.model order by p.valid_from)
        as valid_until,
    p.input_per_1k_usd, p.output_per_1k_usd, p.cached_per_1k_usd, p.defined_at, p.defined_by
from pgflow.price p
where p.project_id = any ((select pgflow._my_projects())::text[]);
comment on view pgflow.prices is 'What a thousand tokens of each model cost, and when.';
comment on column pgflow.prices.valid_until is 'When the next price begins; null: none does.';
comment on column pgflow.prices.cached_per_1k_usd is
    'Of the cached ones among the input tokens; null: as the others.';
