"""The upper layer of one connection: Table 9-10 as events in and outputs out (PS3.8 9.2)."""

import csv
import struct
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netdicom_tx.exceptions import (
    AbortReason,
    DIMSEProcessingError,
    LocalProtocolError,
    PDUProcessingError,
)
from netdicom_tx.fsm import TRANSITIONS, Event, State
from netdicom_tx.pdu import (
    AAbort,
    AAssociateAC,
    AAssociateRJ,
    AAssociateRQ,
    AReleaseRP,
    AReleaseRQ,
    Fragment,
    PresentationContextAC,
    PresentationContextRQ,
)
from netdicom_tx.upperlayer import (
    CloseTransport,
    Indicate,
    OpenTransport,
    Output,
    ProviderAbort,
    Send,
    StartARTIM,
    StopARTIM,
    TransportClosed,
    UpperLayer,
)
from netdicom_tx.userdataitems import UnknownItem
from support.strategies import cuts, encoded, p_data_tf, pdu_streams

REQUEST = AAssociateRQ(
    called_ae_title="ACCEPTOR",
    calling_ae_title="REQUESTOR",
    presentation_contexts=(PresentationContextRQ(1, "1.2.840.10008.1.1", ("1.2.840.10008.1.2",)),),
)
ACCEPTANCE = AAssociateAC(presentation_contexts=(PresentationContextAC(1, 0, "1.2.840.10008.1.2"),))
REJECTION = AAssociateRJ(1, 1, 7)
DATA = p_data_tf([(1, 3, b"command!")])
RECEIVED = Fragment(1, True, True, b"command!")
GARBAGE = b"GET / HTTP/1.1\r\n"

# -- one connection in each state, brought there by what the standard allows ---------------------


def in_state(state: State) -> UpperLayer:
    """A machine in that state, of the side that can be in it."""
    route = ROUTES[state]
    layer = UpperLayer(is_requestor=route[0])
    for step in route[1:]:
        list(step(layer))
    assert layer.state is state
    return layer


def receiving(*pdus: object) -> Callable[[UpperLayer], Iterable[Output]]:
    data = b"".join(p if isinstance(p, bytes) else p.encode() for p in pdus)
    return lambda layer: layer.receive_data(data)


def associating(layer: UpperLayer) -> Iterable[Output]:
    return layer.associate(REQUEST)


def accepting(layer: UpperLayer) -> Iterable[Output]:
    return layer.accept(ACCEPTANCE)


_OPEN, _RELEASE, _ANSWER, _ABORT = (
    UpperLayer.transport_opened,
    UpperLayer.release,
    UpperLayer.answer_release,
    UpperLayer.abort,
)
_REQUESTED = [True, associating, _OPEN]
_ESTABLISHED = [*_REQUESTED, receiving(ACCEPTANCE)]
_ACCEPTED = [False, _OPEN, receiving(REQUEST), accepting]
ROUTES = {
    State.Sta1: [True],
    State.Sta2: [False, _OPEN],
    State.Sta3: [False, _OPEN, receiving(REQUEST)],
    State.Sta4: [True, associating],
    State.Sta5: _REQUESTED,
    State.Sta6: _ESTABLISHED,
    State.Sta7: [*_ESTABLISHED, _RELEASE],
    State.Sta8: [*_ACCEPTED, receiving(AReleaseRQ())],
    State.Sta9: [*_ESTABLISHED, _RELEASE, receiving(AReleaseRQ())],
    State.Sta10: [*_ACCEPTED, _RELEASE, receiving(AReleaseRQ())],
    State.Sta11: [*_ESTABLISHED, _RELEASE, receiving(AReleaseRQ()), _ANSWER],
    State.Sta12: [*_ACCEPTED, _RELEASE, receiving(AReleaseRQ()), receiving(AReleaseRP())],
    State.Sta13: [*_ESTABLISHED, _ABORT],
}

# -- how each event comes in, and what each action puts out --------------------------------------

EVENTS = {
    Event.Evt1: associating,
    Event.Evt2: _OPEN,
    Event.Evt3: receiving(ACCEPTANCE),
    Event.Evt4: receiving(REJECTION),
    Event.Evt5: _OPEN,
    Event.Evt6: receiving(REQUEST),
    Event.Evt7: accepting,
    Event.Evt8: lambda layer: layer.reject(REJECTION),
    Event.Evt9: lambda layer: layer.send_data([DATA]),
    Event.Evt10: receiving(DATA),
    Event.Evt11: _RELEASE,
    Event.Evt12: receiving(AReleaseRQ()),
    Event.Evt13: receiving(AReleaseRP()),
    Event.Evt14: _ANSWER,
    Event.Evt15: _ABORT,
    Event.Evt16: receiving(AAbort(2, 3)),
    Event.Evt17: lambda layer: layer.transport_closed("cable"),
    Event.Evt18: UpperLayer.artim_expired,
    Event.Evt19: receiving(GARBAGE),
}
#: What a received PDU is when it is indicated.
INDICATED = {
    Event.Evt3: ACCEPTANCE,
    Event.Evt4: REJECTION,
    Event.Evt6: REQUEST,
    Event.Evt10: RECEIVED,
    Event.Evt12: AReleaseRQ(),
    Event.Evt13: AReleaseRP(),
    Event.Evt16: AAbort(2, 3),
}


def sent(*pdus: object) -> Send:
    return Send(tuple(p if isinstance(p, bytes) else p.encode() for p in pdus))


def effects(action: str, event: Event) -> list[Output]:
    """Tables 9-6 to 9-9 written out as outputs; a provider abort's detail is compared apart."""
    reason = AbortReason.UNRECOGNIZED_PDU if event is Event.Evt19 else AbortReason.UNEXPECTED_PDU
    abort = AAbort(2, reason)
    indication = [Indicate(INDICATED[event])] if event in INDICATED else []
    return {
        "AE-1": [OpenTransport],
        "AE-2": [sent(REQUEST)],
        "AE-3": indication,
        "AE-4": [*indication, CloseTransport],
        "AE-5": [StartARTIM],
        "AE-6": [StopARTIM, *indication],
        "AE-7": [sent(ACCEPTANCE)],
        "AE-8": [sent(REJECTION), StartARTIM],
        "DT-1": [sent(DATA)],
        "DT-2": indication,
        "AR-1": [sent(AReleaseRQ())],
        "AR-2": indication,
        "AR-3": [*indication, CloseTransport],
        "AR-4": [sent(AReleaseRP()), StartARTIM],
        "AR-5": [StopARTIM],
        "AR-6": indication,
        "AR-7": [sent(DATA)],
        "AR-8": indication,
        "AR-9": [sent(AReleaseRP())],
        "AR-10": indication,
        "AA-1": [sent(AAbort(0, 0)), StartARTIM],
        "AA-2": [StopARTIM, CloseTransport],
        "AA-3": [*indication, CloseTransport],
        "AA-4": [Indicate(TransportClosed("cable"))],
        "AA-5": [StopARTIM],
        "AA-6": [],
        "AA-7": [sent(abort)],
        "AA-8": [sent(abort), Indicate(ProviderAbort(reason, "")), StartARTIM],
    }[action]


def comparable(outputs: Iterable[Output]) -> list[Output]:
    found: list[Output] = []
    for output in outputs:
        match output:
            case Send(data):
                found.append(Send(tuple(bytes(part) for part in data)))
            case Indicate(ProviderAbort(reason, detail)):
                assert detail
                found.append(Indicate(ProviderAbort(reason, "")))
            case _:
                found.append(output)
    return found


def cells() -> Iterator[object]:
    with (Path(__file__).parent / "standard" / "ul_state_table.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            yield pytest.param(
                Event[row["event"]],
                State[row["state"]],
                row["action"],
                row["next_states"].split("|"),
                id=f"{row['event']}-{row['state']}",
            )


FILLED = [cell for cell in cells() if cell.values[2]]
EMPTY = [cell for cell in cells() if not cell.values[2]]


def side_for(event: Event, state: State) -> UpperLayer:
    """Evt5 is the acceptor's transport: in Sta1 the side matters, and nothing else decides it."""
    if event is Event.Evt5 and state is State.Sta1:
        return UpperLayer(is_requestor=False)
    return in_state(state)


@pytest.mark.parametrize(("event", "state", "action", "next_states"), FILLED)
def test_an_event_has_the_effects_of_its_action(event, state, action, next_states):
    """PS3.8 Table 9-10 with Tables 9-6 to 9-9: outputs, their order, and the state after them."""
    layer = side_for(event, state)
    assert comparable(EVENTS[event](layer)) == effects(action, event)
    # The second outcomes, of AE-6 and AR-8, have tests of their own below.
    assert layer.state.name == next_states[0]
    closed = CloseTransport in effects(action, event)
    assert layer.is_over == (closed or event is Event.Evt17)


@pytest.mark.parametrize(
    ("event", "state", "action", "next_states"),
    [cell for cell in EMPTY if cell.values[:2] != (Event.Evt17, State.Sta1)],
)
def test_an_event_that_is_not_possible_is_refused_and_changes_nothing(
    event, state, action, next_states
):
    """PS3.8 Table 9-10, an empty cell: only our own side can have asked for it."""
    layer = in_state(state)
    if event is Event.Evt5:
        layer.is_requestor = False
    with pytest.raises(LocalProtocolError, match=f"{state.name} "):
        list(EVENTS[event](layer))
    assert layer.state is state
    assert not layer.is_over


def test_a_transport_that_closes_before_it_was_used_is_no_event():
    """PS3.8 Table 9-10: Evt17 in Sta1 is empty, and nobody's fault."""
    layer = UpperLayer(is_requestor=False)
    assert list(layer.transport_closed()) == []
    assert layer.state is State.Sta1


# -- the outcomes that the table leaves to the action ---------------------------------------------


@pytest.mark.parametrize("version", [0, 2, 0xFFFE])
def test_a_request_without_version_one_is_rejected_by_the_provider(version):
    """PS3.8 9.3.2 and AE-6: bit 0 is tested; result 1, source 2 (ACSE), reason 2."""
    layer = in_state(State.Sta2)
    request = AAssociateRQ(
        called_ae_title="A",
        calling_ae_title="B",
        presentation_contexts=REQUEST.presentation_contexts,
        protocol_version=version,
    )
    outputs = comparable(layer.receive_data(request.encode()))
    assert outputs == [StopARTIM, sent(AAssociateRJ(1, 2, 2)), StartARTIM]
    assert layer.state is State.Sta13


def test_the_titles_are_known_before_the_request_has_come():
    """PS3.8 Table 9-11: an acceptor that admits peers by their titles need not wait for the rest."""
    layer = in_state(State.Sta2)
    assert list(layer.receive_data(REQUEST.encode()[:74])) == []
    assert layer.titles == (REQUEST.called_ae_title, REQUEST.calling_ae_title)
    list(layer.receive_data(REQUEST.encode()[74:]))
    assert layer.titles is None
    assert layer.state is State.Sta3


@pytest.mark.parametrize("version", [1, 3, 0xFFFF])
def test_other_bits_of_the_version_are_not_tested(version):
    """PS3.8 9.3.2: a receiver of version 1 tests bit 0 and nothing else."""
    layer = in_state(State.Sta2)
    data = bytearray(REQUEST.encode())
    struct.pack_into(">H", data, 6, version)
    stop, indication = layer.receive_data(bytes(data))
    assert stop is StopARTIM
    assert isinstance(indication, Indicate)
    assert isinstance(indication.what, AAssociateRQ)
    assert layer.state is State.Sta3


def test_a_release_collision_takes_the_acceptor_to_sta10():
    """PS3.8 AR-8: the association requestor goes to Sta9, the acceptor to Sta10."""
    layer = in_state(State.Sta10)
    with pytest.raises(LocalProtocolError, match="Sta10"):
        layer.answer_release()
    assert list(layer.receive_data(AReleaseRP().encode())) == [Indicate(AReleaseRP())]
    assert layer.state is State.Sta12
    assert comparable(layer.answer_release()) == [sent(AReleaseRP()), StartARTIM]
    assert layer.state is State.Sta13


# -- after the transport is closed ----------------------------------------------------------------

OVER = {
    "AE-4, rejected": (State.Sta5, receiving(REJECTION)),
    "AR-3, released": (State.Sta7, receiving(AReleaseRP())),
    "AR-3, released after a collision": (State.Sta11, receiving(AReleaseRP())),
    "AA-2, aborted before it was open": (State.Sta4, UpperLayer.abort),
    "AA-2, ARTIM in Sta2": (State.Sta2, UpperLayer.artim_expired),
    "AA-2, ARTIM in Sta13": (State.Sta13, UpperLayer.artim_expired),
    "AA-3, aborted by the peer": (State.Sta6, receiving(AAbort(0, 0))),
    "AA-4, connection lost": (State.Sta6, UpperLayer.transport_closed),
    "AA-5, connection closed unused": (State.Sta2, UpperLayer.transport_closed),
    "AR-5, closed as it should be": (State.Sta13, UpperLayer.transport_closed),
}


@pytest.mark.parametrize("how", OVER)
def test_what_the_transport_says_after_the_end_is_ignored(how):
    """The module's only addition to Table 9-10: we ordered the close, so Evt17 finds Sta1."""
    state, end = OVER[how]
    layer = in_state(state)
    list(end(layer))
    assert layer.is_over
    assert layer.state is State.Sta1
    for late in (
        UpperLayer.transport_opened,
        receiving(DATA),
        receiving(GARBAGE),
        UpperLayer.artim_expired,
        lambda layer: layer.invalid_data(DIMSEProcessingError("late")),
        UpperLayer.transport_closed,
    ):
        assert list(late(layer)) == []
        assert layer.state is State.Sta1


@pytest.mark.parametrize("how", OVER)
def test_the_user_can_ask_for_nothing_after_the_end(how):
    """One machine is for one connection; a second association would find the first's leftovers."""
    state, end = OVER[how]
    layer = in_state(state)
    list(end(layer))
    assert not any((layer.may_abort, layer.may_send_data, layer.may_answer_release))
    for request in (associating, accepting, UpperLayer.release, UpperLayer.abort):
        with pytest.raises(LocalProtocolError):
            request(layer)
    assert layer.state is State.Sta1


def test_pdus_behind_the_one_that_ended_it_are_ignored():
    """An A-ABORT and more in one segment: the transport is closed, the rest was never sent."""
    layer = in_state(State.Sta6)
    outputs = list(layer.receive_data(AAbort(0, 0).encode() + DATA + GARBAGE))
    assert outputs == [Indicate(AAbort(0, 0)), CloseTransport]


# -- one door: the state first, then the outputs, and these one by one ----------------------------


def test_the_state_is_committed_before_the_first_output():
    """The code that performs an output may cause the next input at once."""
    layer = in_state(State.Sta3)
    outputs = layer.accept(ACCEPTANCE)
    assert layer.is_established
    assert layer.may_send_data
    assert comparable(layer.send_data([DATA])) == [sent(DATA)]
    assert comparable(outputs) == [sent(ACCEPTANCE)]


def test_an_abort_while_the_first_pdu_is_handled_stops_the_rest_of_the_segment():
    """PS3.8 AA-6: what was received before the abort but not looked at is ignored in Sta13."""
    layer = in_state(State.Sta6)
    received = layer.receive_data(DATA * 3)
    assert next(received) == Indicate(RECEIVED)
    assert comparable(layer.abort()) == [sent(AAbort(0, 0)), StartARTIM]
    assert list(received) == []
    assert layer.state is State.Sta13


def test_a_segment_is_read_only_as_far_as_its_outputs_were_taken():
    """A reject decided while the request is indicated leaves P-DATA behind it to AA-6."""
    layer = in_state(State.Sta2)
    received = layer.receive_data(REQUEST.encode() + DATA)
    assert next(received) is StopARTIM
    assert next(received) == Indicate(REQUEST)
    assert layer.state is State.Sta3
    list(layer.reject(REJECTION))
    assert list(received) == []
    assert layer.state is State.Sta13


def test_data_behind_a_request_waits_for_no_one():
    """PS3.8 Table 9-10, Evt10 in Sta3: the peer may not send data before it was accepted."""
    layer = in_state(State.Sta2)
    outputs = comparable(layer.receive_data(REQUEST.encode() + DATA))
    reason = AbortReason.UNEXPECTED_PDU
    assert outputs[2:] == [
        sent(AAbort(2, reason)),
        Indicate(ProviderAbort(reason, "")),
        StartARTIM,
    ]


def test_an_acceptance_on_the_way_lets_the_data_behind_the_request_in():
    """The same segment, but the user accepts while the request is being indicated."""
    layer = in_state(State.Sta2)
    outputs = []
    for output in layer.receive_data(REQUEST.encode() + DATA):
        outputs.append(output)
        if output == Indicate(REQUEST):
            list(layer.accept(ACCEPTANCE))
    assert outputs == [StopARTIM, Indicate(REQUEST), Indicate(RECEIVED)]


def test_a_pdu_that_cannot_be_encoded_leaves_the_state_as_it_was():
    """Nothing was sent, so nothing has happened: the user can still reject or abort."""
    layer = in_state(State.Sta3)
    too_long = AAssociateAC(
        presentation_contexts=(), user_information=(UnknownItem(0xF0, bytes(0xFFFF)),)
    )
    with pytest.raises(LocalProtocolError, match="65535"):
        layer.accept(too_long)
    assert layer.state is State.Sta3
    assert comparable(layer.reject(REJECTION)) == [sent(REJECTION), StartARTIM]


def test_a_second_request_does_not_replace_the_first():
    """PS3.8 Table 9-10, Evt1 in Sta4: refused, and the first is what goes out."""
    layer = in_state(State.Sta4)
    other = AAssociateRQ(called_ae_title="X", calling_ae_title="Y", presentation_contexts=())
    with pytest.raises(LocalProtocolError):
        layer.associate(other)
    assert comparable(layer.transport_opened()) == [sent(REQUEST)]


def test_the_limit_of_what_is_received_is_the_readers():
    """PS3.8 D.1: the length that we announce is the one that we insist on."""
    layer = UpperLayer(is_requestor=False, receive_limit=len(DATA) - 7)
    assert layer.receive_limit == len(DATA) - 7
    for step in ROUTES[State.Sta8][1:-1]:
        list(step(layer))
    assert len(comparable(layer.receive_data(DATA))) == 3
    assert layer.state is State.Sta13


# -- faults of the peer ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x08\0\0\0\0\4abcd", AbortReason.UNRECOGNIZED_PDU),
        (b"\x00\0\0\0\0\4abcd", AbortReason.UNRECOGNIZED_PDU),
        (b"GET / HTTP/1.1\r\n", AbortReason.UNRECOGNIZED_PDU),
        (b"\x16\x03\x01\x02\0\x01", AbortReason.UNRECOGNIZED_PDU),
        (b"\x04\0\xff\xff\xff\xff", AbortReason.INVALID_PARAMETER_VALUE),
        (b"\x04\0\0\0\0\5", AbortReason.INVALID_PARAMETER_VALUE),
        (b"\x05\0\xff\xff\xff\xff", AbortReason.INVALID_PARAMETER_VALUE),
        (b"\x01\0\0\x10\0\1", AbortReason.INVALID_PARAMETER_VALUE),
        (b"\x01\0\0\0\0\4abcd", AbortReason.INVALID_PARAMETER_VALUE),
        (b"\x04\0\0\0\0\x08\0\0\0\1\1\3ab", AbortReason.INVALID_PARAMETER_VALUE),
        (b"\x04\0\0\0\0\x08\0\0\0\5\1\3ab", AbortReason.INVALID_PARAMETER_VALUE),
    ],
)
def test_a_wrong_pdu_is_answered_with_the_reason_that_fits(data, reason):
    """PS3.8 Table 9-26 and AA-8; a malformed PDU is Evt19, never an exception."""
    layer = UpperLayer(is_requestor=False, receive_limit=1 << 16)
    for step in ROUTES[State.Sta8][1:-1]:
        list(step(layer))
    outputs = comparable(layer.receive_data(data))
    assert outputs == [sent(AAbort(2, reason)), Indicate(ProviderAbort(reason, "")), StartARTIM]


@pytest.mark.parametrize("state", [State.Sta2, State.Sta6, State.Sta13])
def test_the_reader_stops_at_the_first_wrong_pdu(state):
    """After nonsense nobody knows where the next PDU begins: it is answered once."""
    layer = in_state(state)
    assert comparable(layer.receive_data(GARBAGE)) != []
    assert list(layer.receive_data(AAbort(0, 0).encode() + GARBAGE)) == []
    assert layer.state is State.Sta13


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (DIMSEProcessingError("x", AbortReason.UNEXPECTED_PARAMETER), 5),
        (PDUProcessingError("x"), 6),
        (ValueError("a fault of our own"), 0),
    ],
)
def test_what_only_the_user_can_see_is_evt19_too(error, reason):
    """PS3.8 Annex E is broken in a PDV, or PS3.7 in a command set: the provider aborts."""
    layer = in_state(State.Sta6)
    outputs = comparable(layer.invalid_data(error))
    assert outputs == [
        sent(AAbort(2, reason)),
        Indicate(ProviderAbort(AbortReason(reason), "")),
        StartARTIM,
    ]


def test_the_detail_of_a_provider_abort_names_the_pdu_and_the_state():
    """An operator reads it: what came, and where."""
    for pdu, what in ((DATA, "P-DATA-TF"), (REQUEST.encode(), "AAssociateRQ")):
        indication = list(in_state(State.Sta5).receive_data(pdu))[1]
        assert isinstance(indication, Indicate)
        assert isinstance(indication.what, ProviderAbort)
        assert what in indication.what.detail
        assert "Sta5" in indication.what.detail


@given(
    st.binary(max_size=300),
    st.sampled_from([s for s in State if s not in (State.Sta1, State.Sta4)]),
)
def test_random_bytes_are_answered_and_never_raised(data, state):
    """Every PDU and every non-PDU has a cell wherever a transport is open."""
    layer = in_state(state)
    for output in layer.receive_data(data):
        assert output is not None


@pytest.mark.slow
@given(st.data())
def test_any_cut_of_a_stream_has_the_same_outputs(data):
    """TCP promises an order, not a cutting; fragments are compared by what they hold."""
    stream = b"".join(map(encoded, data.draw(pdu_streams)))
    stream += data.draw(st.sampled_from([b"", GARBAGE, DATA[:-3]]))
    pieces = data.draw(cuts(stream))
    state = data.draw(st.sampled_from([State.Sta2, State.Sta5, State.Sta6, State.Sta7]))
    whole, cut = in_state(state), in_state(state)
    expected = joined(whole.receive_data(stream))
    assert joined(output for piece in pieces for output in cut.receive_data(piece)) == expected
    assert cut.state is whole.state


def joined(outputs: Iterable[Output]) -> list[object]:
    """Outputs, the fragments of one PDV put together."""
    found: list[object] = []
    for output in outputs:
        match output:
            case Indicate(Fragment(context_id, is_command, is_last, data)):
                last = found[-1] if found else None
                if isinstance(last, list) and last[:2] == [context_id, is_command] and not last[2]:
                    last[2], last[3] = is_last, last[3] + bytes(data)
                else:
                    found.append([context_id, is_command, is_last, bytes(data)])
            case _:
                found.append(output)
    return found


def test_p_data_of_4_gib_is_handed_on_and_not_kept():
    """A PDU's announced length costs nothing, its bytes pass through."""
    layer = in_state(State.Sta6)
    list(layer.receive_data(struct.pack(">BxIIBB", 4, 0xFFFFFFFF, 0xFFFFFFFB, 1, 0)))
    segment = bytes(1 << 16)
    tracemalloc.start()
    try:
        passed = 0
        for _ in range(512):
            for output in layer.receive_data(segment):
                assert isinstance(output, Indicate)
                assert isinstance(output.what, Fragment)
                passed += len(output.what.data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert passed == 512 << 16
    assert peak < 1 << 16


# -- two of them, joined --------------------------------------------------------------------------


class Side:
    """A machine, what it has sent, and the timer that it believes in."""

    def __init__(self, is_requestor: bool) -> None:
        self.layer = UpperLayer(is_requestor=is_requestor, receive_limit=64)
        self.sent = bytearray()
        self.artim = False
        self.has_closed = False
        self.told: list[object] = []

    def perform(self, outputs: Iterable[Output]) -> None:
        for output in outputs:
            assert not self.has_closed, "an output after CloseTransport"
            match output:
                case Send(data):
                    self.sent += b"".join(data)
                case Indicate(what):
                    self.told.append(what)
            if output is StartARTIM:
                self.artim = True
            elif output is StopARTIM:
                self.artim = False
            elif output is CloseTransport:
                self.has_closed = True


class Pair:
    """A requestor and an acceptor with a transport between them that cuts as it likes."""

    def __init__(self) -> None:
        self.sides = (Side(True), Side(False))
        self.is_open = False
        self.sides[0].perform(self.sides[0].layer.associate(REQUEST))

    def open(self) -> None:
        if not self.is_open and not self.sides[0].has_closed:
            self.is_open = True
            for side in self.sides:
                side.perform(side.layer.transport_opened())

    def step(self, who: int, what: str, amount: int) -> None:  # noqa: C901 - one branch for each kind of input
        """One thing that may happen now: what may not is left out by the side itself."""
        side, layer = self.sides[who], self.sides[who].layer
        match what:
            case "open":
                self.open()
            case "deliver":
                self.deliver(who, amount)
            case "expire" if side.artim:
                side.artim = False
                side.perform(layer.artim_expired())
            case "accept" if (Event.Evt7, layer.state) in TRANSITIONS:
                side.perform(layer.accept(ACCEPTANCE))
            case "reject" if (Event.Evt8, layer.state) in TRANSITIONS:
                side.perform(layer.reject(REJECTION))
            case "data" if layer.may_send_data:
                side.perform(layer.send_data([DATA]))
            case "release" if layer.is_established:
                side.perform(layer.release())
            case "answer" if layer.may_answer_release:
                side.perform(layer.answer_release())
            case "abort" if layer.may_abort:
                side.perform(layer.abort())
            case "noise" if self.is_open and not side.has_closed:
                side.sent += bytes([amount, 0, 0, 0, 0, 4, 1, 2, 3, 4])
            case "cut" if self.is_open:
                for each in self.sides:
                    each.perform(each.layer.transport_closed())

    def deliver(self, to: int, amount: int) -> None:
        side, other = self.sides[to], self.sides[1 - to]
        if not self.is_open or side.has_closed:
            return
        data = bytes(other.sent[:amount])
        del other.sent[:amount]
        side.perform(side.layer.receive_data(data))
        if other.has_closed and not other.sent and not side.has_closed:
            side.perform(side.layer.transport_closed())

    def settle(self) -> None:
        """Deliver everything, answer every release, let every timer expire."""
        self.open()
        for _ in range(12):
            for who in (0, 1):
                self.step(who, "deliver", 1 << 16)
                self.step(who, "answer", 0)
        for who in (0, 1):
            self.step(who, "abort", 0)
        for _ in range(4):
            for who in (0, 1):
                self.step(who, "deliver", 1 << 16)
                self.step(who, "expire", 0)


_ONCE = ["open", "expire", "reject", "data", "abort", "noise", "cut"]
STEPS = st.tuples(
    st.integers(0, 1),
    st.sampled_from([*_ONCE, *["accept", "release", "answer"] * 2, *["deliver"] * 4]),
    st.integers(0, 255),
)


@given(st.lists(STEPS, max_size=40))
def test_two_machines_never_meet_an_empty_cell_and_always_come_to_an_end(steps):
    """Whatever the users, the network and a saboteur do: no exception, and both go back to Sta1."""
    pair = Pair()
    pair.open()
    for step in steps:
        pair.step(*step)
    pair.settle()
    for side in pair.sides:
        assert side.layer.state is State.Sta1
        assert side.layer.is_over


def established() -> Pair:
    pair = Pair()
    pair.open()
    pair.deliver(1, 1 << 16)
    pair.step(1, "accept", 0)
    pair.deliver(0, 1 << 16)
    assert all(side.layer.is_established for side in pair.sides)
    return pair


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(1, 12)), max_size=30), st.booleans())
def test_a_release_collision_ends_as_a_release_however_the_pdus_cross(deliveries, data_too):
    """PS3.8 AR-8 to AR-10: both asked, both answer, both are confirmed, nobody aborts."""
    pair = established()
    if data_too:
        pair.step(0, "data", 0)
        pair.step(1, "data", 0)
    pair.step(0, "release", 0)
    pair.step(1, "release", 0)
    for who, amount in deliveries:
        pair.deliver(who, amount)
        pair.step(who, "answer", 0)
    pair.settle()
    for side in pair.sides:
        assert side.told.count(AReleaseRQ()) == 1
        assert side.told.count(AReleaseRP()) == 1
        assert not [t for t in side.told if isinstance(t, AAbort | ProviderAbort | TransportClosed)]
        assert side.layer.is_over


def test_a_release_without_a_collision_is_confirmed_to_who_asked():
    """PS3.8 AR-1, AR-2, AR-4, AR-3: and the acceptor waits in Sta13 for the transport to close."""
    pair = established()
    pair.step(0, "release", 0)
    pair.deliver(1, 1 << 16)
    pair.step(1, "answer", 0)
    assert pair.sides[1].layer.state is State.Sta13
    assert pair.sides[1].artim
    pair.deliver(0, 1 << 16)
    assert pair.sides[0].told[-1] == AReleaseRP()
    assert pair.sides[0].has_closed
    pair.deliver(1, 0)
    assert pair.sides[1].layer.is_over
    assert not pair.sides[1].artim


def test_an_acceptor_may_still_send_data_after_the_peer_asked_for_release():
    """PS3.8 AR-7 and AR-6: responses under way come before A-RELEASE-RP, and are indicated."""
    pair = established()
    pair.step(0, "release", 0)
    pair.deliver(1, 1 << 16)
    pair.step(1, "data", 0)
    pair.deliver(0, 1 << 16)
    assert pair.sides[0].told[-1] == RECEIVED
    assert pair.sides[0].layer.state is State.Sta7


@pytest.mark.parametrize("state", [s for s in State if (Event.Evt15, s) in TRANSITIONS])
def test_an_abort_ends_the_association_from_every_state_that_has_one(state):
    """PS3.8 Table 9-10, Evt15: A-ABORT of the service-user, or nothing where nobody listens."""
    layer = in_state(state)
    outputs = comparable(layer.abort())
    if state is State.Sta4:
        assert outputs == [StopARTIM, CloseTransport]
        assert layer.is_over
    else:
        assert outputs == [sent(AAbort(0, 0)), StartARTIM]
        assert list(layer.transport_closed()) == [StopARTIM]
        assert layer.is_over
