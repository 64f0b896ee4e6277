"""The state machine against an independent copy of PS3.8 Tables 9-6 to 9-10.

What its steps do when a connection performs them is in ``test_upperlayer.py``.
"""

import csv
from pathlib import Path

import pytest

from netdicom_tx.fsm import ACTIONS, TABLE_9_10, TRANSITIONS, Event, State, Step

STANDARD = Path(__file__).parent / "standard"


def table(name: str) -> list[dict[str, str]]:
    with (STANDARD / name).open(newline="") as file:
        return list(csv.DictReader(file))


CELLS = [
    pytest.param(row, id=f"{row['event']}-{row['state']}") for row in table("ul_state_table.csv")
]
ROWS = {row["action"]: row for row in table("ul_actions.csv")}
#: Two actions of the standard have two outcomes; the second is a row of its own here.
SECOND = {"AE-6": "AE-6 unacceptable", "AR-8": "AR-8 acceptor"}


def outcomes(action: str) -> list[str]:
    return [action, *([SECOND[action]] if action in SECOND else [])]


def test_the_table_has_247_cells():
    """PS3.8 Table 9-10: 19 events by 13 states."""
    assert len(CELLS) == 247 == len(Event) * len(State)
    assert len({(row.values[0]["event"], row.values[0]["state"]) for row in CELLS}) == 247


@pytest.mark.parametrize("cell", CELLS)
def test_a_cell_says_what_table_9_10_says(cell):
    """PS3.8 Table 9-10: the action, or no action where the cell is empty."""
    action = TRANSITIONS.get((Event[cell["event"]], State[cell["state"]]))
    assert (action or "") == cell["action"]


@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell.values[0]["action"]])
def test_a_transition_ends_in_the_state_of_table_9_10(cell):
    """PS3.8 Table 9-10: the next state or, for AE-6 and AR-8, one of two."""
    action = TRANSITIONS[Event[cell["event"]], State[cell["state"]]]
    ends = {ACTIONS[outcome].next_state.name for outcome in outcomes(action)}
    assert ends == set(cell["next_states"].split("|"))


def test_the_table_is_as_wide_as_its_heading():
    """The text table is read column by column: a row that is short would shift its cells."""
    header, *rows = (line.split() for line in TABLE_9_10.strip().splitlines())
    assert header == [state.name for state in State]
    assert [row[0] for row in rows] == [event.name for event in Event]
    assert {len(row) for row in rows} == {14}


def test_nothing_but_the_actions_of_the_standard_is_there():
    """PS3.8 Tables 9-6 to 9-9 have 28 actions; all of them are in use."""
    assert len(ROWS) == 28
    assert set(ACTIONS) == set(ROWS) | set(SECOND.values())
    assert set(TRANSITIONS.values()) == set(ROWS)


SENDING = {
    Step.SEND,
    Step.SEND_DATA,
    Step.SEND_USER_ABORT,
    Step.SEND_PROVIDER_ABORT,
    Step.SEND_REJECT,
}
TELLING = {Step.INDICATE, Step.INDICATE_PROVIDER_ABORT, Step.INDICATE_TRANSPORT_CLOSED}


@pytest.mark.parametrize("name", [name for row in ROWS for name in outcomes(row)])
def test_an_action_does_what_tables_9_6_to_9_9_say(name):
    """Sending, telling the local user, ARTIM, closing and the next state, one column each."""
    row, steps = ROWS[name.split()[0]], set(ACTIONS[name].steps)
    unacceptable = name == "AE-6 unacceptable"
    conditional = {
        "A-ASSOCIATE-RJ (only when not acceptable)": unacceptable,
        "A-ASSOCIATE indication (only when acceptable)": not unacceptable,
        # The transport's own primitives are no indication to the user.
        "T-CONNECT request": False,
        "T-CONNECT response": False,
    }
    sends = conditional.get(row["sends_pdu"], bool(row["sends_pdu"]))
    tells = conditional.get(row["issues_primitive"], bool(row["issues_primitive"]))
    starts, stops = {
        "": (False, False),
        "start": (True, False),
        "start or restart": (True, False),
        "stop": (False, True),
        "stop if running": (False, True),
        "stop; start again only when rejecting": (unacceptable, True),
    }[row["artim"]]
    assert bool(steps & SENDING) == sends
    assert bool(steps & TELLING) == tells
    assert (Step.START_ARTIM in steps) == starts
    assert (Step.STOP_ARTIM in steps) == stops
    assert (Step.CLOSE_TRANSPORT in steps) == (row["closes_transport"] == "yes")
    assert (Step.OPEN_TRANSPORT in steps) == (row["issues_primitive"] == "T-CONNECT request")
    assert ACTIONS[name].next_state.name in row["next_states"].split("|")
    assert len(steps) == len(ACTIONS[name].steps)


@pytest.mark.parametrize(
    ("name", "step"),
    [("AA-1", Step.SEND_USER_ABORT), ("AA-8", Step.SEND_PROVIDER_ABORT)],
)
def test_an_abort_names_its_source(name, step):
    """PS3.8 Table 9-9: AA-1 sends source 0 (service-user), AA-8 source 2 (service-provider)."""
    source = {Step.SEND_USER_ABORT: "source 0", Step.SEND_PROVIDER_ABORT: "source 2"}[step]
    assert step in ACTIONS[name].steps
    assert source in ROWS[name]["sends_pdu"]


def test_the_user_hears_of_a_failure_before_the_transport_is_closed():
    """PS3.8 Tables 9-6 to 9-9: 'issue ... and close the transport connection', in this order."""
    for action in ACTIONS.values():
        if Step.CLOSE_TRANSPORT in action.steps:
            assert action.steps[-1] is Step.CLOSE_TRANSPORT


@pytest.mark.parametrize("event", [f"Evt{n}" for n in (3, 4, 6, 10, 12, 13, 16, 19)])
def test_the_peer_cannot_reach_an_empty_cell(event):
    """PS3.8 Table 9-10: with a transport open (Sta2, Sta3, Sta5 to Sta13) every PDU has a cell."""
    open_states = [state for state in State if state not in (State.Sta1, State.Sta4)]
    assert len(open_states) == 11
    assert all((Event[event], state) in TRANSITIONS for state in open_states)


def test_the_transport_may_close_in_every_state_that_has_one():
    """PS3.8 Table 9-10, Evt17; Sta4 is waiting for it to open."""
    assert {state for state in State if (Event.Evt17, state) in TRANSITIONS} == set(State) - {
        State.Sta1
    }


def test_artim_expires_only_where_an_action_may_have_started_it():
    """PS3.8 Table 9-10, Evt18: Sta2 and Sta13; everything that starts ARTIM ends in one of them."""
    may_expire = {state for state in State if (Event.Evt18, state) in TRANSITIONS}
    starting = {a.next_state for a in ACTIONS.values() if Step.START_ARTIM in a.steps}
    assert starting == may_expire == {State.Sta2, State.Sta13}


def test_54_cells_say_aa_8():
    """The module's docstring counts them."""
    assert len(TRANSITIONS) == 123
    assert list(TRANSITIONS.values()).count("AA-8") == 54
