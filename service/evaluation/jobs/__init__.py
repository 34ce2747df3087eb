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

Transitions:

    create     (none)           → QUEUED     gateway   INSERT, then add a job to the queue
    acquire    QUEUED, RUNNING  → RUNNING    runner    a job from the queue; the new lease ends any earlier one
    report     RUNNING          → RUNNING    runner    progress and results; a heartbeat renews the lease every 2 s
    release    RUNNING          → RUNNING    runner    it stops: no lease, and the job is queued again
    (expiry)   RUNNING          → RUNNING    any       no heartbeat for 10 s: recovery queues the job again
    succeed    RUNNING          → SUCCEEDED  runner    stores the report in the same transaction
    fail       RUNNING          → FAILED     runner    an error, or ten leases in a row without progress
    cancel     QUEUED, RUNNING  → CANCELLED  gateway   on request; the runner's next write raises LeaseLost
    delete     any              → (none)     gateway   on request
    expire     ended            → (none)     gateway   after `keep_days`, or beyond the limit on report bytes
"""
