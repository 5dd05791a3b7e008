"""The alert of a TLS connection that fails, and the reason of its end."""

import ssl

import pytest
from tls_memory_link import one_iteration
from tls_reasons import BAD_RECORD

from fastloop import _tls

#: A ServerHelloDone where a ClientHello is due.
NO_HELLO = b"\x16\x03\x01\x00\x04\x0e\0\0\0"


def spoiled_record(link, before=b""):
    """A record of the client's that the server cannot decrypt."""
    if before:
        link.client.protocol.transport.write(before)
    good = len(link.client.raw.sent)
    link.client.protocol.transport.write(b"data")
    record = bytearray(link.client.raw.sent)
    link.client.raw.sent.clear()
    assert len(record) > good
    record[-1] ^= 1
    return record


def lose(end, exc=None):
    """The transport below is lost before its write() returns."""

    def write(data):
        if end.raw.write is write:
            del end.raw.write
        end.tls.connection_lost(exc)

    end.raw.write = write


def keep_the_loss(protocol):
    losses = []
    protocol.connection_lost = losses.append
    return losses


def test_ctrl_c_while_an_alert_is_sent_propagates(link, fast_loop):
    """And the connection has ended."""

    def interrupt(data):
        raise KeyboardInterrupt

    record = spoiled_record(link)
    link.server.raw.write = interrupt
    with pytest.raises(KeyboardInterrupt):
        link.server.give(record)
    (exc,) = link.server.raw.calls
    assert exc.reason in BAD_RECORD
    del link.server.raw.write
    link.server.give(record)
    one_iteration(fast_loop)
    assert link.server.raw.calls == [exc]


def test_ctrl_c_while_a_handshakes_alert_is_sent_ends_it(new_link, fast_loop):
    def interrupt(data):
        raise KeyboardInterrupt

    link = new_link
    waiter = link.server.tls._waiter = fast_loop.create_future()
    link.server.raw.write = interrupt
    with pytest.raises(KeyboardInterrupt):
        link.server.give(NO_HELLO)
    assert isinstance(waiter.exception(), ssl.SSLError)
    assert waiter.exception() in link.server.raw.calls


@pytest.mark.parametrize("error", [None, BrokenPipeError("gone")])
def test_a_bad_record_is_the_reason_though_its_alert_is_lost(
    link, fast_loop, error
):
    losses = keep_the_loss(link.server.protocol)
    record = spoiled_record(link)
    lose(link.server, error)
    link.server.give(record)
    one_iteration(fast_loop)
    (exc,) = losses
    assert exc.reason in BAD_RECORD


def test_a_failed_handshake_is_the_reason_though_its_alert_is_lost(
    new_link, fast_loop
):
    waiter = new_link.server.tls._waiter = fast_loop.create_future()
    lose(new_link.server)
    new_link.server.give(NO_HELLO)
    assert isinstance(waiter.exception(), ssl.SSLError)


@pytest.mark.parametrize(
    "call",
    [
        lambda end: end.protocol.transport.write(b"more"),
        lambda end: end.protocol.transport.close(),
        lambda end: end.give(b"\x17\x03\x03\x00\x10" + bytes(16)),
        lambda end: end.tls.eof_received(),
    ],
    ids=["write", "close", "data", "eof"],
)
def test_a_call_while_an_alert_is_sent_does_nothing(link, fast_loop, call):
    reports = []
    fast_loop.set_exception_handler(lambda loop, info: reports.append(info))
    end, sent = link.server, []

    def write(data):
        sent.append(data)
        call(end)

    record = spoiled_record(link)
    end.raw.write = write
    end.give(record)
    one_iteration(fast_loop)
    assert len(sent) == 1
    assert [type(exc) for exc in end.raw.calls] == [ssl.SSLError]
    assert reports == []
    assert end.tls._timer is None


@pytest.mark.parametrize("answer", ["write", "close", "pause_reading"])
def test_an_answer_to_data_before_a_bad_record(link, fast_loop, answer):
    """The engine has failed by then: the bad record remains the reason."""
    end = link.server
    losses = keep_the_loss(end.protocol)
    end.protocol.data_received = lambda data: (
        end.protocol.transport.write(b"answer")
        if answer == "write"
        else getattr(end.protocol.transport, answer)()
    )
    end.give(spoiled_record(link, before=b"good"))
    (exc,) = end.raw.calls
    assert exc.reason in BAD_RECORD
    end.tls.connection_lost(None)
    one_iteration(fast_loop)
    assert losses == [exc]


def test_an_abort_in_data_before_a_bad_record_is_the_reason(link, fast_loop):
    end = link.server
    losses = keep_the_loss(end.protocol)
    end.protocol.data_received = lambda data: end.protocol.transport.abort()
    end.give(spoiled_record(link, before=b"good"))
    assert end.raw.calls == ["abort"]
    end.tls.connection_lost(None)
    one_iteration(fast_loop)
    assert losses == [None]


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_a_failed_handshake_is_the_reason_though_its_report_fails(
    new_link, monkeypatch, error
):
    end = new_link.server
    stop_timer = _tls._stop_timer

    def fails(tls):
        monkeypatch.setattr(_tls, "_stop_timer", stop_timer)
        raise error

    monkeypatch.setattr(_tls, "_stop_timer", fails)
    with pytest.raises(error):
        end.tls.eof_received()
    assert isinstance(end.raw.calls[0], ConnectionResetError)


def test_ctrl_c_in_eof_received_delays_the_end_of_a_shutdown(link, fast_loop):
    """By one iteration: nothing else would end the connection."""
    end = link.server

    def interrupt():
        raise KeyboardInterrupt

    end.protocol.eof_received = interrupt
    with pytest.raises(KeyboardInterrupt):
        end.tls.eof_received()
    one_iteration(fast_loop)
    one_iteration(fast_loop)
    assert end.raw.calls == ["close"]


def test_a_shutdown_without_its_timer_aborts(link, monkeypatch):
    end = link.server

    def fails(tls):
        raise MemoryError

    monkeypatch.setattr(_tls, "shutdown_begins", fails)
    with pytest.raises(MemoryError):
        end.protocol.transport.close()
    assert end.raw.calls == ["abort"]
