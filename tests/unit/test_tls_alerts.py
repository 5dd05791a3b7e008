"""The alert of a TLS connection that fails, and the reason of its end."""

import ssl

import pytest
from tls_memory_link import one_iteration
from tls_reasons import BAD_RECORD

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


def keep_the_loss(protocol):
    losses = []
    protocol.connection_lost = losses.append
    return losses


@pytest.mark.parametrize(
    "error", [None, BrokenPipeError("gone"), KeyboardInterrupt]
)
@pytest.mark.parametrize("stage", ["handshake", "data"])
def test_a_bad_record_is_the_reason_though_its_alert_is_not_sent(
    new_link, fast_loop, stage, error
):
    """The transport below is lost, or Ctrl-C comes, before write() returns:
    Ctrl-C propagates, and the connection has ended.
    """
    end = new_link.server

    def write(data):
        del end.raw.write
        if error is KeyboardInterrupt:
            raise error
        end.tls.connection_lost(error)

    if stage == "data":
        new_link.carry()
    record = NO_HELLO if stage == "handshake" else spoiled_record(new_link)
    losses = keep_the_loss(end.protocol)
    waiter = end.tls._waiter = fast_loop.create_future()
    end.raw.write = write
    if error is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            end.give(record)
        (exc,) = end.raw.calls
        end.give(record)
        assert end.raw.calls == [exc]
        end.tls.connection_lost(None)
    else:
        end.give(record)
    one_iteration(fast_loop)
    if stage == "handshake":
        assert isinstance(waiter.exception(), ssl.SSLError)
        assert losses == []
    else:
        (exc,) = losses
        assert exc.reason in BAD_RECORD


@pytest.mark.parametrize(
    "answer", ["nothing", "write", "close", "pause_reading", "abort"]
)
@pytest.mark.parametrize("paused", [False, True])
def test_an_answer_to_data_before_a_bad_record_leaves_the_reason(
    link, fast_loop, answer, paused
):
    """The data arrives first.  The engine has failed by then: the bad record
    remains the reason but for abort(), also while a peer takes nothing.
    """
    end = link.server
    losses, got = keep_the_loss(end.protocol), []

    def received(data):
        got.append(data)
        if answer == "write":
            end.protocol.transport.write(b"answer")
        elif answer != "nothing":
            getattr(end.protocol.transport, answer)()

    end.protocol.data_received = received
    if paused:
        end.tls.pause_writing()
    end.give(spoiled_record(link, before=b"good"))
    (exc,) = end.raw.calls
    end.tls.connection_lost(None)
    one_iteration(fast_loop)
    assert got == [b"good"]
    if answer == "abort":
        assert (exc, losses) == ("abort", [None])
    else:
        assert exc.reason in BAD_RECORD
        assert losses == [exc]


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
