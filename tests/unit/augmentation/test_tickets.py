"""Tickets: signed by one gateway, opened by any with the key; all others are refused."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from fount.ticket.v1 import ticket_pb2
from fount.v1 import augmentation_pb2, model_pb2
from service.errors import NotPermitted, SetupError, TicketInvalid
from service.rpc.tickets import LAYOUT_VERSION, MAX_TICKET_BYTES, TicketKeys, open_ticket, plan_id, sign

KEYS = TicketKeys(keys={"new": b"n" * 32, "old": b"o" * 32})
OLD = TicketKeys(keys={"old": b"o" * 32})
FOREIGN = TicketKeys(keys={"new": b"x" * 32})


GENERATOR = augmentation_pb2.PinnedModel(
    role="generator", model=model_pb2.ModelRef(name="painter", version="1", digest="sha256:1"), numerics="cpu"
)
SPEC = augmentation_pb2.PlanDatasetRequest(dataset="small", seed=3)


def payload(**fields) -> ticket_pb2.TicketPayload:
    given = {
        "layout_version": LAYOUT_VERSION,
        "subject": "ada",
        "expire_unix_s": 1000,
        "request": SPEC,
        "dataset_digest": "sha256:2",
        "models": [GENERATOR],
        "copy_threshold": 0.5,
    }
    return ticket_pb2.TicketPayload(**(given | fields))


def refusal(ticket: bytes, keys: TicketKeys = KEYS, now: float = 999) -> str:
    with pytest.raises(TicketInvalid) as error:
        open_ticket(ticket, keys, "ada", now_unix_s=now)
    assert [each.field for each in error.value.violations] == ["ticket"]
    return str(error.value)


def test_it_opens_what_it_signed() -> None:
    assert open_ticket(sign(payload(), KEYS), KEYS, "ada", now_unix_s=999) == payload()


def test_it_opens_what_the_release_before_signed() -> None:
    earlier = payload(layout_version=2)
    assert open_ticket(sign(earlier, KEYS), KEYS, "ada", now_unix_s=999) == earlier


def test_it_opens_what_an_older_key_signed() -> None:
    assert open_ticket(sign(payload(), OLD), KEYS, "ada", now_unix_s=999) == payload()


def test_the_first_key_signs() -> None:
    assert ticket_pb2.Ticket.FromString(sign(payload(), KEYS)).key_id == "new"


def test_a_ticket_of_an_unknown_key_is_refused() -> None:
    assert "key 'new', which this gateway does not have" in refusal(sign(payload(), KEYS), OLD)


def test_a_ticket_of_another_key_of_the_same_name_is_refused() -> None:
    assert "was changed" in refusal(sign(payload(), FOREIGN))


def test_a_changed_payload_is_refused() -> None:
    ticket = ticket_pb2.Ticket.FromString(sign(payload(), KEYS))
    ticket.payload = ticket_pb2.Ticket.FromString(sign(payload(expire_unix_s=99999), FOREIGN)).payload
    assert "was changed" in refusal(ticket.SerializeToString())


def test_another_key_id_with_the_same_signature_is_refused() -> None:
    ticket = ticket_pb2.Ticket.FromString(sign(payload(), KEYS))
    ticket.key_id = "old"
    assert "was changed" in refusal(ticket.SerializeToString())


@pytest.mark.parametrize("byte", range(0, 90, 7))
def test_no_byte_can_be_changed(byte: int) -> None:
    ticket = bytearray(sign(payload(), KEYS))
    ticket[byte % len(ticket)] ^= 0x55
    with pytest.raises(TicketInvalid):
        open_ticket(bytes(ticket), KEYS, "ada", now_unix_s=999)


@pytest.mark.parametrize("ticket", [b"", b"\xff\xff", b"a ticket", b"x" * (MAX_TICKET_BYTES + 1)])
def test_other_bytes_are_refused(ticket: bytes) -> None:
    assert "PlanDataset" in refusal(ticket) or "key ''" in refusal(ticket)


def test_an_expired_ticket_is_refused() -> None:
    assert "expired 5 s ago; plan again" in refusal(sign(payload(), KEYS), now=1005)


def test_a_ticket_of_another_release_is_refused() -> None:
    for version in (1, LAYOUT_VERSION + 1):
        assert "another release" in refusal(sign(payload(layout_version=version), KEYS))


def test_another_caller_s_ticket_is_refused() -> None:
    with pytest.raises(NotPermitted, match="another caller than bob"):
        open_ticket(sign(payload(), KEYS), KEYS, "bob", now_unix_s=999)


def test_a_plan_of_other_content_has_another_id() -> None:
    other = augmentation_pb2.PlanDatasetRequest(dataset="small", seed=4)
    changed = [payload(request=other), payload(models=[]), payload(dataset_digest="sha256:3")]
    assert len({plan_id(each) for each in (payload(), *changed)}) == 4


def test_the_time_to_live_is_not_part_of_the_id() -> None:
    longer = augmentation_pb2.PlanDatasetRequest(dataset="small", seed=3)
    longer.time_to_live.seconds = 9
    assert plan_id(payload(request=longer, expire_unix_s=2000, subject="bob")) == plan_id(payload())


def test_the_id_of_a_plan_is_the_same_in_every_release() -> None:
    assert plan_id(payload()) == "0c6c5ecdf4b1de33383330e0"


# --- Keys -------------------------------------------------------------------------------------------------------------


def test_a_new_file_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "state" / "ticket-keys"
    made = TicketKeys.at(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert TicketKeys.at(path).keys == made.keys
    assert [each.name for each in path.parent.iterdir()] == ["ticket-keys"]


def test_keys_are_read_in_order(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"# rotated in May\nmay:{'ab' * 32}  # signs\n\napril:{'01' * 32}\n")
    path.chmod(0o600)
    keys = TicketKeys.at(path)
    assert keys.signing == ("may", b"\xab" * 32)
    assert list(keys.keys) == ["may", "april"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("may:abc\n", "line 1: is not an id, a colon and 64", id="short"),
        pytest.param(f"a:{'0' * 64}\na:{'1' * 64}\n", "line 2: the id 'a' is there a second time", id="twice"),
        pytest.param("# nothing\n", "holds no key", id="empty"),
    ],
)
def test_a_wrong_file_is_named_with_its_line(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "keys"
    path.write_text(text)
    with pytest.raises(SetupError, match=problem):
        TicketKeys.at(path)


def test_a_file_that_cannot_be_made_names_the_option(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SetupError, match="--ticket-keys"):
        TicketKeys.at(tmp_path / "file" / "keys")


def test_a_file_that_others_can_read_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys"
    path.write_text(f"a:{'0' * 64}\n")
    path.chmod(0o644)
    monkeypatch.setattr(Path, "chmod", lambda *_: None)  # it is another user's
    with caplog.at_level(logging.WARNING):
        TicketKeys.at(path)
    assert "chmod 600" in caplog.text


def test_keys_are_not_shown() -> None:
    assert "nnn" not in repr(KEYS)


def test_a_key_of_a_process_does_not_last() -> None:
    assert not TicketKeys.at(None).are_lasting
    assert TicketKeys.at(None).keys != TicketKeys.at(None).keys
