"""Which plan an export is of: one made from wishes and kept in the export's folder, or a ticket from elsewhere.

A plan file without a seed names another plan each time it is planned. So the plan made first is kept, and a second run
goes on with its ticket; when the ticket is no longer taken, the same plan is asked for again, by its resolved request.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict, ParseError

from fount.augmentation.plan import PlanInfo, plan_info
from fount.augmentation.plan_file import load_plan_file, plan_request
from fount.client.sync import Client
from fount.errors import NotFound, OutputError
from fount.export.target_folder import Place
from fount.v1 import augmentation_pb2

__all__ = ["Chosen", "choose", "is_plan_file", "renew"]

_PLAN_ENDINGS = (".yaml", ".yml", ".json")


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A plan to export.

    Attributes:
        ticket: what its rows are pulled by.
        plan: the plan; None when the ticket came alone.
    """

    ticket: bytes
    plan: PlanInfo | None


def is_plan_file(path: Path) -> bool:
    """Whether a file holds wishes rather than a ticket, by its ending."""
    return path.suffix.lower() in _PLAN_ENDINGS


def choose(client: Client, place: Place, path: Path) -> Chosen:
    """Plan the wishes of a file, or find the plan made of them before; or read a ticket.

    Raises:
        InvalidRequest: the wishes are wrong.
        OutputError: the folder is of other wishes, or cannot be written.
        FountError: the server did not plan them.
    """
    if not is_plan_file(path):
        try:
            return Chosen(ticket=path.read_bytes(), plan=None)
        except OSError as error:
            raise NotFound(f"The ticket {str(path)!r} cannot be read: {error.strerror or error}.") from error
    request = plan_request(load_plan_file(path))
    wishes = _as_json(request)
    known = place.plan()
    if known is None:
        return _keep(place, wishes, client.plan(request))
    if known.get("wishes") != wishes:
        raise OutputError(
            f"{place.folder} holds an export of other wishes than {path} has now; name another folder with --out"
        )
    return _known(place, known)


def renew(client: Client, place: Place, chosen: PlanInfo) -> Chosen:
    """Ask for the same plan again, when its ticket is no longer taken.

    Raises:
        OutputError: it has become another plan.
        FountError: the server does not plan it any more, naming what it no longer has.
    """
    again = client.plan(chosen.request)
    if again.id != chosen.id:
        raise OutputError(
            f"{place.folder} holds rows of plan {chosen.id}, whose ticket is no longer taken, and planning it again "
            f"gives {again.id}; name another folder with --out"
        )
    return _keep(place, (place.plan() or {}).get("wishes"), again)


def _keep(place: Place, wishes: Any, plan: PlanInfo) -> Chosen:
    place.keep_plan({"wishes": wishes, "plan": _as_json(plan.message)}, plan.ticket)
    return Chosen(ticket=plan.ticket, plan=plan)


def _known(place: Place, known: dict[str, Any]) -> Chosen:
    try:
        plan = plan_info(ParseDict(known.get("plan", {}), augmentation_pb2.Plan()))
    except (ParseError, ValueError) as error:
        raise OutputError(f"{place.folder} holds no plan that can be read ({error}); name another folder") from error
    return Chosen(ticket=plan.ticket, plan=plan)


def _as_json(message: Any) -> Any:
    return json.loads(json.dumps(MessageToDict(message)))
