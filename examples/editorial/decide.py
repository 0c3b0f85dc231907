"""Send SQL to a database, a statement a line, and print what comes back; knows nothing of pgflow.

The demo uses it where there is no psql: `python decide.py DSN < statements`.
"""

import sys

import psycopg

with psycopg.connect(sys.argv[1], autocommit=True) as conn:
    for statement in sys.stdin:
        print(*(conn.execute(statement.encode()).fetchone() or ()), flush=True)
