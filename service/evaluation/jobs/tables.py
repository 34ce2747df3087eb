"""The tables: evaluations, their reports, runners that are alive, and the version of this layout.

One layout for SQLite and PostgreSQL. The engine that queues keeps tables of its own beside these.
"""

from __future__ import annotations

import sqlalchemy as sa

__all__ = ["LAYOUT", "evaluations", "layout", "metadata", "reports", "runners"]

LAYOUT = 1
"""Of these tables. A database with another one is refused."""

metadata = sa.MetaData()

layout = sa.Table(
    "fount_layout",
    metadata,
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
)

evaluations = sa.Table(
    "fount_evaluations",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("request_id", sa.String(128)),  # NULL: the request had none
    sa.Column("request_digest", sa.Text, nullable=False),
    sa.Column("specification", sa.Text, nullable=False),  # JSON
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("reason", sa.Text, nullable=False, default=""),
    sa.Column("stage", sa.Text, nullable=False, default=""),
    sa.Column("done", sa.Integer, nullable=False, default=0),
    sa.Column("total", sa.Integer, nullable=False, default=0),
    sa.Column("update_unix_s", sa.Double, nullable=False, default=0.0),
    sa.Column("metrics", sa.Text, nullable=False, default="[]"),  # JSON
    sa.Column("panels", sa.Text, nullable=False, default="[]"),  # JSON
    sa.Column("gates", sa.Text, nullable=False, default="[]"),  # JSON
    sa.Column("create_unix_s", sa.Double, nullable=False),
    sa.Column("start_unix_s", sa.Double, nullable=False, default=0.0),
    sa.Column("end_unix_s", sa.Double, nullable=False, default=0.0),
    sa.Column("report_bytes", sa.BigInteger, nullable=False, default=0),
    sa.Column("enqueued", sa.Boolean, nullable=False, default=False),  # the engine knows it
    sa.Column("owner", sa.String(64), nullable=False, default=""),  # the turn of a runner that may write
    sa.Column("runner", sa.String(64), nullable=False, default=""),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),  # taken up without getting further since
    sa.UniqueConstraint("subject", "request_id", name="fount_evaluations_request"),
    sa.Index("fount_evaluations_state", "state", "create_unix_s"),
    sa.Index("fount_evaluations_subject", "subject", "id"),
)

reports = sa.Table(
    "fount_reports",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("bundle", sa.LargeBinary, nullable=False),
)

runners = sa.Table(
    "fount_runners",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("start_unix_s", sa.Double, nullable=False),
    sa.Column("beat_unix_s", sa.Double, nullable=False),
)
