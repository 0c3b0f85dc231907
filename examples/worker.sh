#!/usr/bin/env bash
# A pgflow worker in bash and psql; docs/worker-protocol.md explains it. A run's handler names a
# command, which reads the text of the run's input; what it writes is the run's output.
# Usage: [PGFLOW_DSN=…] worker.sh [QUEUE]. Needs psql, and timeout of the GNU coreutils.
declare -A commands=([shell.wc]='wc -w' [shell.check]='bash -n' [shell.sleep]='xargs sleep')
queue=${1:-shell} me=$(hostname):$$ marks='' run='' lease='' job=''
dir=$(mktemp -d) && touch "$dir/held"

sql() { # executes its standard input, in which psql quotes the values
    psql -XAtq -d "${PGFLOW_DSN-}" -v ON_ERROR_STOP=1 -v me="$me" -v queue="$queue" \
        -v run="$run" -v lease="$lease" "$@"
}
register() {
    sql -v names="${!commands[*]}" <<< "select extract(epoch from beat_every)
        from pgflow.register_worker(:'me', array[:'queue'], 1, (
            select jsonb_agg(jsonb_build_object('handler', h, 'queue', :'queue'))
            from unnest(string_to_array(:'names', ' ')) as h))"
}
acquire() { # a field a line; the text is the last, because it may have many lines
    sql -F $'\n' -v marks="$marks" <<< "select a.marks, extract(epoch from a.look_again_in),
            r ->> 'run_id', r ->> 'lease_no', r ->> 'handler', r ->> 'timeout', r -> 'input' ->> 'text'
        from pgflow.acquire(:'me', array[:'queue'], 1, nullif(:'marks', '')::jsonb, false) as a
        left join lateral json_array_elements(a.runs) as r on true"
}
complete() {
    sql <<< "\\set out \`cat $dir/out\`
        select * from pgflow.complete(array[:'run']::uuid[], array[:lease],
            array[json_build_object('stdout', :'out')::text])"
}
fail() { # CODE RETRY
    sql -v code="$1" -v retry="$2" <<< "\\set why \`tail -c 2000 $dir/err\`
        select * from pgflow.fail(array[:'run']::uuid[], array[:lease], array[:'code'],
            array[:'why'], retries => array[:'retry'::boolean])"
}
beat() { # for as long as the worker lives: names the run that it holds, stops what it has lost
    while sleep "$every"; do
        read -r run lease job < "$dir/held"
        lost=$(sql <<< "select outcome from pgflow.beat(:'me', array_remove(array[:'run'], '')::uuid[],
            array_remove(array[:'lease'], '')::integer[]) where outcome = 'lost'")
        [ -z "$lost" ] || kill "$job"
        sql <<< "select did from pgflow.maintain()"
    done
}
goodbye() { # what is still held goes back, once its command has ended
    kill $beater $job
    wait $job
    sql <<< "select pgflow.stop_worker(:'me')"
    rm -r "$dir"
}

every=$(register) || exit
beat > /dev/null & beater=$!
trap 'goodbye > /dev/null 2>&1' EXIT
trap 'exit 0' TERM INT
while true; do
    acquire > "$dir/lease" # no pipe: it must have returned before goodbye
    { read -r marks; read -r pause; read -r run; read -r lease; read -r handler; read -r limit
      cat > "$dir/in"; } < "$dir/lease"
    if [ -z "$run" ]; then
        [ -n "$marks" ] || register > /dev/null # the server was away, or doesn't know us any more
        sleep "${pause:-1}" & wait $!
        continue
    fi
    command=${commands[$handler]:-echo "no command for $handler" >&2; exit 127}
    timeout "${limit:-0}" bash -c "$command" < "$dir/in" > "$dir/out" 2> "$dir/err" & job=$!
    echo "$run $lease $job" > "$dir/held"
    wait $job
    case $? in
        0) complete || fail E-RUN-001 false ;;
        124) echo "ran longer than $limit s" >> "$dir/err" && fail E-RUN-003 true ;;
        127) fail E-RUN-004 false ;;
        *) fail E-RUN-001 true ;;
    esac
    : > "$dir/held" # not before: a lease that a beat doesn't name goes back
done
