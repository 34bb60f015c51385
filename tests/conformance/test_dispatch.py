"""The driver's service for its executors: who may speak to it, and what becomes of whoever is lost."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest

from semtel_batch.engines.spark import dispatch as service
from semtel_batch.engines.spark.dispatch import Dispatch
from semtel_batch.engines.spark.seats import DriverLine, Lost
from semtel_batch.errors import BadInput

ASKED = {"main": (1.0, True, 40.0)}


@pytest.fixture
def dispatch() -> Iterator[Dispatch]:
    with Dispatch("127.0.0.1", 0, [{"main": 8}], [0, 0, 0], n_tasks=1) as made:
        yield made


def test_a_seat_takes_slices_and_has_all_while_it_is_alone(dispatch: Dispatch) -> None:
    line = DriverLine(dispatch.address)
    assert line.ask("join") == {"way": 0}
    assert [line.ask("next")["slice"] for _ in range(2)] == [0, 1]
    told = line.ask("renew", using={}, demands=ASKED)
    assert (told["shares"], told["densities"], told["is_wanted"]) == ({"main": 1.0}, {}, True)
    again = line.ask("renew", using={"main": 1.0}, demands=ASKED)
    assert again["densities"] == {"main": 40.0}, "so that whoever comes knows what the endpoint bears"
    dispatch.close()
    assert not line.ask("renew", using={"main": 1.0}, demands=ASKED)["is_wanted"]
    assert line.ask("leave") == {}
    assert (dispatch.n_seats, dispatch.n_met) == (0, 1)
    line.close()


def test_who_does_not_know_the_secret_is_not_answered(dispatch: Dispatch) -> None:
    with pytest.raises(Lost):
        DriverLine(replace(dispatch.address, token=b"guessed"))
    stranger = socket.create_connection((dispatch.address.host, dispatch.address.port), timeout=5)
    stranger.sendall(b"\x00\x00\x00\x05hello")
    stranger.close()
    assert dispatch.n_met == 0
    line = DriverLine(dispatch.address)
    assert line.ask("join") == {"way": 0}, "and nobody else is disturbed"
    line.close()


def test_what_a_lost_seat_had_in_hand_goes_to_the_next(dispatch: Dispatch) -> None:
    dead, line = DriverLine(dispatch.address), DriverLine(dispatch.address)
    for one in (dead, line):
        one.ask("join")
    assert [dead.ask("next")["slice"], line.ask("next")["slice"]] == [0, 1]
    line.ask("ended", slice=1)
    dispatch.lose(dead._seat)  # as when its connection ends
    assert [line.ask("next")["slice"] for _ in range(2)] == [2, 0]
    dead.close()
    line.close()


def test_a_problem_that_asking_again_cannot_mend_ends_its_way(dispatch: Dispatch) -> None:
    line = DriverLine(dispatch.address)
    line.ask("join")
    for _ in range(3):
        line.ask("failed", way=0, is_final=False, problem="no network")
    assert line.ask("next")["slice"] == 0, "others may have a network"
    line.ask("failed", way=0, is_final=True, problem="no quota")
    assert line.ask("next")["slice"] is None
    assert dispatch.problems == ["no network", "no quota"]
    line.close()


def test_who_says_nothing_is_shown_the_door(dispatch: Dispatch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_PROVE_S", 1)
    stranger = socket.create_connection((dispatch.address.host, dispatch.address.port), timeout=20)
    while stranger.recv(1 << 10):  # the challenge, and then the end
        pass
    stranger.close()
    line = DriverLine(dispatch.address)
    assert line.ask("join") == {"way": 0}, "and who belongs here may be silent for longer"
    line.close()


def test_the_secret_is_shown_nowhere(dispatch: Dispatch) -> None:
    assert repr(dispatch.address.token) not in repr(dispatch.address)


def test_a_port_that_others_have_is_said(dispatch: Dispatch) -> None:
    with pytest.raises(BadInput, match=f"port {dispatch.address.port} .*driver.port"):
        Dispatch("127.0.0.1", dispatch.address.port, [], [], n_tasks=1)


def test_a_driver_that_is_gone_is_noticed(dispatch: Dispatch) -> None:
    line = DriverLine(dispatch.address)
    line.close()
    with pytest.raises(Lost):
        line.ask("join")
    closed = replace(dispatch.address, port=1)
    with pytest.raises(Lost):
        DriverLine(closed)
