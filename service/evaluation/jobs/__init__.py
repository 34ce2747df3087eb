"""Evaluation jobs: created by gateways, queued, and run step by step by whichever runner is alive.

A `Specification` enters; `Record`s and, at the end, a report leave.

One source of truth. The table of evaluations holds everything that clients see: the state, progress, results, report,
and the lease of the runner at work. Every change of state is one guarded UPDATE of one row. DBOS is the engine: it
hands queued evaluations to runners, limits how many one runner works on, remembers which steps are done, and rejects
the checkpoints of a runner that was replaced. Nothing that clients see is read from DBOS, and its tables can be
rebuilt from ours: `runner.Recovery` enqueues every unfinished evaluation that DBOS does not have.

What our tables add to DBOS, and why:

- subject, request id, specification, limits, expiry: queries that DBOS's list of workflows cannot answer;
- reports and results: DBOS stores step results as text, and reports are megabytes;
- leases: without its commercial service, DBOS resumes the jobs of a dead process only when a process with the same id
  starts. An expired lease makes the other runners resume the job, and a lease guards every write, so that a runner
  that only seemed dead, or whose evaluation was cancelled, cannot change the record.

    QUEUED ──acquire (runner)──► RUNNING ──succeed (runner)──► SUCCEEDED ──┐
      │                           │  ▲ └───fail (runner)─────► FAILED ─────┤ expire (gateway) or delete (caller)
      │                           └──┘ acquire: the lease was released     │
      │                                or has expired                      ▼
      └──cancel (caller, gateway)─────┴──────────────────────► CANCELLED ─► removed
"""
