"""Which test calls which row of surface_table.py, as data.

CALLS: a test of tests/behaviour, and below it the rows that it calls on both
loops, each with the optional parameters that it gives.  A line that is
indented further goes on with the one above.

OTHER: what the surface has besides methods and attributes, with the tests
that show it; a test of another folder has its path from tests/.

test_surface_proofs.py checks that the lists are whole and true.
"""

from __future__ import annotations

import re

from . import surface_table as table

#: Row owner -> the tables that its rows are in.
OWNERS = {
    "Loop": (table.LOOP, table.PRIVATE_LOOP),
    "Server": (table.SERVER,),
    "Transport": (
        table.BASE,
        table.READ,
        table.LIMITS,
        table.WRITE,
        table.PRIVATE_TRANSPORT,
    ),
    "Datagrams": (table.DATAGRAM,),
    "Process": (table.SUBPROCESS,),
    "Handle": (table.HANDLE, table.PRIVATE_HANDLE),
    "Timer": (table.TIMER, table.PRIVATE_TIMER),
}

CALLS = """
test_asyncgens::test_shutdown_of_several
    Loop.shutdown_asyncgens
test_connect_tcp::test_accepted_socket
    Loop.connect_accepted_socket
test_connect_tcp::test_all_errors
    Loop.create_connection(all_errors)
test_connect_tcp::test_given_socket
    Loop.create_connection(sock)
test_context::test_one_context_for_many_callbacks
    Loop.call_soon(context)
test_datagram_endpoint::test_a_connected_endpoint_knows_its_peer
    Datagrams.sendto(addr)
test_datagram_flow::test_aborting_drops_what_waits
    Datagrams.abort
test_datagram_traffic::test_echo_many
    Datagrams.sendto
test_dns::test_getaddrinfo_is_sockets
    Loop.getaddrinfo(type)
test_dns::test_getnameinfo
    Loop.getnameinfo
test_exceptions::test_default_handler_by_hand
    Loop.default_exception_handler
test_exceptions::test_handler_set_and_get
    Loop.set_exception_handler
    Loop.get_exception_handler
test_executor::test_runs_in_another_thread
    Loop.run_in_executor
test_executor::test_set_default_executor
    Loop.set_default_executor
test_executor_shutdown::test_shutdown_twice
    Loop.shutdown_default_executor
test_executor_shutdown::test_shutdown_within_the_timeout
    Loop.shutdown_default_executor(timeout)
test_fd_watchers::test_add_remove_many_times
    Loop.add_writer
    Loop.remove_writer
test_fd_watchers::test_adding_again_replaces
    Loop.add_reader
    Loop.remove_reader
test_flow_control::test_huge_limits
    Transport.set_write_buffer_limits(high low)
test_flow_control::test_no_resume_after_abort
    Transport.abort
test_flow_control::test_set_limits
    Transport.get_write_buffer_limits
    Transport.set_write_buffer_limits
test_handles::test_cancel_drops_callback_and_arguments
    Handle._callback
test_handles::test_cancelled_callback_does_not_run
    Handle.cancel
    Handle.cancelled
test_handles::test_get_context
    Handle.get_context
test_handles::test_when_stays_after_cancel
    Timer.when
test_keyword_calls::test_a_server_as_a_context
    Server.__aenter__
    Server.__aexit__
test_keyword_calls::test_addresses_of_names
    Loop.getaddrinfo(family proto flags)
test_keyword_calls::test_connecting_a_socket
    Loop.sock_connect
test_keyword_calls::test_connection_by_keywords
    Loop.create_connection(host port family proto flags local_addr
        happy_eyeballs_delay interleave)
    Loop.create_server(host port family flags backlog reuse_address
        reuse_port start_serving)
test_keyword_calls::test_datagrams_by_keywords
    Loop.create_datagram_endpoint(local_addr remote_addr family proto flags
        reuse_port allow_broadcast sock)
test_keyword_calls::test_how_much_is_received
    Loop.sock_recvfrom_into(nbytes)
test_keyword_calls::test_names_of_addresses
    Loop.getnameinfo(flags)
test_keyword_calls::test_timer_at_a_time_in_a_context
    Loop.call_at(context)
test_keyword_calls::test_tls_begun_later_with_time_limits
    Loop.connect_accepted_socket(ssl_handshake_timeout ssl_shutdown_timeout)
    Loop.start_tls(server_side server_hostname ssl_handshake_timeout
        ssl_shutdown_timeout)
test_keyword_calls::test_tls_over_tcp_with_time_limits
    Loop.create_connection(ssl_shutdown_timeout)
    Loop.create_server(ssl_shutdown_timeout)
test_keyword_calls::test_tls_over_unix_with_time_limits
    Loop.create_unix_connection(path ssl server_hostname
        ssl_handshake_timeout ssl_shutdown_timeout)
    Loop.create_unix_server(path ssl ssl_handshake_timeout
        ssl_shutdown_timeout)
test_lifecycle::test_call_exception_handler_works_on_a_closed_loop
    Loop.call_exception_handler
test_lifecycle::test_close_twice
    Loop.is_closed
    Loop.close
test_own_runs::test_private_call_soon
    Loop._call_soon
test_pipes::test_reading
    Loop.connect_read_pipe
test_pipes::test_writing
    Loop.connect_write_pipe
test_private_names::test_cancelled_handle_is_not_queued
    Loop._add_callback
    Loop._ready
test_private_names::test_descriptors_of_a_closed_loop
    Loop._internal_fds
    Loop._selector
test_private_names::test_scheduled_lists_timers
    Loop._scheduled
test_private_values::test_checks_of_a_loop
    Loop._check_callback
    Loop._check_closed
    Loop._check_running
    Loop._check_thread
test_private_values::test_clock_and_timers_of_a_loop
    Loop._clock_resolution
    Loop._run_once
    Loop._timer_cancelled_count
    Loop._timer_handle_cancelled
    Loop._write_to_self
test_private_values::test_coroutine_origins
    Loop._set_coroutine_origin_tracking
test_private_values::test_default_executor
    Loop._default_executor
test_private_values::test_factories_and_handlers
    Loop._exception_handler
    Loop._task_factory
test_private_values::test_generators_of_a_loop
    Loop._asyncgens
test_private_values::test_inside_of_a_handle
    Handle._context
    Handle._loop
    Handle._cancelled
    Handle._source_traceback
    Handle._repr
    Handle._run
    Handle._repr_info
test_private_values::test_inside_of_a_timer
    Timer._when
    Timer._scheduled
test_private_values::test_serving_by_private_names
    Loop._start_serving
    Loop._stop_serving
test_private_values::test_signal_handlers_of_a_loop
    Loop._signal_handlers
    Handle._args
test_private_values::test_state_of_a_loop
    Loop._closed
    Loop._debug
    Loop._stopping
test_private_values::test_state_of_a_transport
    Transport._loop
    Transport._sock
    Transport._protocol
    Transport._closing
    Transport._conn_lost
    Transport._paused
    Transport._eof
    Transport._server
    Transport._force_close
    Transport._sendfile_compatible
    Transport._start_tls_compatible
    Transport.max_size
test_private_values::test_the_handle_that_runs
    Loop._current_handle
test_private_values::test_thread_of_a_loop
    Loop._thread_id
test_private_values::test_tls_by_private_names
    Loop._make_ssl_transport
test_private_values::test_transports_by_private_names
    Loop._make_socket_transport
test_private_values::test_unix_servers_of_a_loop
    Loop._unix_server_sockets
test_private_values::test_watchers_by_private_names
    Loop._add_reader
    Loop._add_writer
    Loop._remove_reader
    Loop._remove_writer
test_run::test_cancelled_future
    Loop.run_until_complete
test_run::test_stop_does_not_wait
    Loop.run_forever
    Loop.stop
test_scheduling::test_a_subclass_overriding_call_soon_is_used
    Loop.call_later(context)
test_scheduling::test_builtin_callbacks
    Loop.call_soon
test_scheduling::test_create_future_belongs_to_the_loop
    Loop.create_future
test_scheduling::test_get_debug_and_set_debug
    Loop.get_debug
    Loop.set_debug
test_scheduling::test_is_running_only_while_running
    Loop.is_running
test_sendfile_calls::test_by_keywords
    Loop.sendfile(offset count fallback)
    Loop.sock_sendfile(offset count fallback)
test_server_api::test_abort_clients
    Server.abort_clients
test_server_api::test_close_clients
    Server.close_clients
test_server_api::test_close_twice
    Server.close
test_server_api::test_given_socket
    Loop.create_server(sock)
test_server_api::test_keep_alive
    Loop.create_server(keep_alive)
test_server_api::test_serve_forever_until_cancelled
    Server.serve_forever
test_server_api::test_start_serving_false
    Server.start_serving
test_server_api::test_the_server_object
    Server.get_loop
    Server.is_serving
test_server_api::test_wait_closed_and_open_connections
    Server.wait_closed
test_signals::test_adding_again_replaces
    Loop.add_signal_handler
    Loop.remove_signal_handler
test_socket_calls::test_accept
    Loop.sock_accept
test_socket_calls::test_datagrams
    Loop.sock_recvfrom
    Loop.sock_recvfrom_into
    Loop.sock_sendto
test_socket_calls::test_recv_into
    Loop.sock_recv_into
test_socket_calls::test_sendall
    Loop.sock_recv
    Loop.sock_sendall
test_subprocess_calls::test_exec
    Loop.subprocess_exec(stdin stdout stderr)
    Process.get_pid
    Process.get_returncode
    Process.get_pipe_transport
test_subprocess_calls::test_shell
    Loop.subprocess_shell(stdin stdout stderr)
test_subprocess_calls::test_signals
    Process.send_signal
    Process.terminate
    Process.kill
test_subprocess_calls::test_what_exec_refuses
    Loop.subprocess_exec(universal_newlines shell bufsize encoding errors
        text)
test_subprocess_calls::test_what_shell_refuses
    Loop.subprocess_shell(universal_newlines shell bufsize encoding errors
        text)
test_tasks::test_context
    Loop.create_task(context)
test_tasks::test_create_task_makes_asyncios_task
    Loop.create_task
test_tasks::test_name
    Loop.create_task(name)
test_tasks::test_task_factory_set_and_get
    Loop.set_task_factory
    Loop.get_task_factory
test_threadsafe::test_context_is_that_of_the_caller
    Loop.call_soon_threadsafe
test_threadsafe::test_context_may_be_given
    Loop.call_soon_threadsafe(context)
test_timers::test_a_nearer_timer_armed_by_a_callback
    Loop.call_later
test_timers::test_call_at_never_early
    Loop.call_at
    Loop.time
test_tls_failures::test_handshake_timeout
    Loop.create_connection(ssl server_hostname ssl_handshake_timeout)
    Loop.create_server(ssl ssl_handshake_timeout)
test_tls_streams::test_tls_over_given_sockets
    Loop.connect_accepted_socket(ssl)
test_transport_close::test_close_after_everything_is_a_no_op
    Transport.is_reading
    Transport.get_write_buffer_size
test_transport_close::test_close_sends_what_is_buffered
    Transport.close
    Transport.is_closing
test_transport_errors::test_fatal_error_with_what_leaves_loops
    Transport._fatal_error
test_transport_info::test_protocol_can_be_read_and_replaced
    Transport.set_protocol
    Transport.get_protocol
test_transport_info::test_socket_is_a_transport_socket
    Transport.get_extra_info
test_transport_info::test_unknown_key_gives_the_default
    Transport.get_extra_info(default)
test_transport_inside::test_extra_info_by_hand
    Transport._extra
test_transport_inside::test_transports_of_a_loop_by_number
    Loop._transports
test_transport_inside::test_water_marks
    Transport._protocol_paused
test_transport_read::test_pause_and_resume_may_be_repeated
    Transport.pause_reading
    Transport.resume_reading
test_transport_write::test_bytes_like_arguments
    Transport.write
test_transport_write::test_write_eof_after_data
    Transport.write_eof
    Transport.can_write_eof
test_transport_write::test_writelines
    Transport.writelines
test_unix_streams::test_a_bound_client_has_a_name
    Loop.create_unix_connection(sock)
test_unix_streams::test_backlog_reaches_listen
    Loop.create_unix_server(sock backlog)
test_unix_streams::test_cleanup_socket_false
    Loop.create_unix_server(cleanup_socket)
test_unix_streams::test_kinds_of_path
    Loop.create_unix_server
test_unix_streams::test_start_serving_false
    Loop.create_unix_server(start_serving)
"""

OTHER = """
The loop
    slow_callback_duration: test_debug::test_slow_callback_is_logged
    handles of call_soon_threadsafe wait (3.14): \
test_review_threadsafe::test_cancel_waits_for_the_callback
The server
    sockets, isinstance: lint/test_surface::test_servers
    serve_forever ends the connections (3.13.1): \
test_server_api::test_serve_forever_until_cancelled
    wait_closed waits (3.12.1): \
test_server_api::test_wait_closed_and_open_connections
Transports
    isinstance, all kinds: lint/test_surface::test_transport
    extras, all kinds: lint/test_surface::test_transport_extras
    __dict__ and weak references: \
test_transport_info::test_attributes_and_weak_references
    methods replaced: \
test_transport_inside::test_method_replaced_on_the_instance
    repr: test_transport_info::test_repr_tells_the_state
Handles
    isinstance: test_handles::test_is_a_handle
    repr: test_handles::test_repr_names_callback_and_arguments
    order: test_handles::test_timer_handles_order_by_when
    equality, hash: test_handles::test_timer_handles_equality_and_hash
The module
    new_event_loop: test_policy::test_new_event_loop
    run: test_policy::test_run
    install: test_policy::test_install
    EventLoopPolicy: test_policy::test_policy_makes_our_loops
    Loop: test_policy::test_loop_class_makes_loops
    an asyncio.EventLoop (3.13): lint/test_surface::test_the_module
Runners
    Runner(debug, loop_factory): \
test_policy::test_asyncio_runner_with_new_event_loop
    Runner, twice and more: test_run::test_runner_runs_many_times
    run(debug, loop_factory) (3.12): test_run::test_asyncio_run_loop_factory
    a run taken apart: test_own_runs::test_turns_of_a_guest
Streams
    open_connection, start_server, the same of Unix: \
test_streams::test_an_echo_server
    StreamWriter.start_tls: test_start_tls::test_streams_upgrade_both_sides
    readuntil of several (3.13): test_streams::test_readuntil_one_of_several
Tasks and futures
    they are asyncio's: test_tasks::test_create_task_makes_asyncios_task
    all_tasks, current_task: test_tasks::test_current_task_and_all_tasks
    eager_task_factory (3.12): test_tasks::test_eager_task_factory
    create_eager_task_factory (3.12): \
test_tasks::test_create_eager_task_factory_with_own_class
    eager_start (3.14): test_tasks::test_eager_start_by_keyword
    factories that take little: test_tasks::test_factory_of_the_old_kind
    timeout, nested and moved: test_patterns::test_timeouts_nest_and_move
    Queue.shutdown (3.13): test_queue_shutdown::test_getters_are_told
Processes
    asyncio.subprocess: test_subprocesses::test_input_and_output
    child watchers (to 3.13): \
test_subprocess_calls::test_the_watcher_that_a_program_set_is_asked
Looking in from outside
    call graphs (3.14): \
isolated/test_call_graphs::test_the_graph_of_a_waiting_task
    one's own call graph (3.14): isolated/test_call_graphs::test_ones_own_graph
    python -m asyncio ps, pstree (3.14): \
isolated/test_call_graphs::test_a_process_seen_from_outside
Debug mode
    source_traceback of reports: \
test_debug_reports::test_reports_tell_where_a_callback_was_scheduled
    handle_traceback of reports: \
test_debug_reports::test_a_report_from_a_callback_tells_its_handle
    unclosed transports warn: \
test_debug_reports::test_unclosed_transports_name_themselves
"""


def wanted() -> set[str]:
    """Every row of every version, and every optional parameter of it."""
    found = set()
    for owner, tables in OWNERS.items():
        for each in tables:
            if isinstance(each, list):
                found |= {f"{owner}.{n.partition('@')[0]}" for n in each}
                continue
            for name, parameters in table.all_rows(each).items():
                found.add(f"{owner}.{name}")
                found |= {f"{owner}.{name}({p})" for p in parameters}
    return found


def claims() -> dict[str, set[str]]:
    """Test -> the rows and optional parameters that it is to call."""
    found: dict[str, set[str]] = {}
    rows: set[str] = set()
    for line in re.sub(r"\n {5,}", " ", CALLS).strip().splitlines():
        if not line.startswith(" "):
            rows = found.setdefault(line, set())
            continue
        row, _, given = line.strip(" )").partition("(")
        rows.add(row)
        rows |= {f"{row}({parameter})" for parameter in given.split()}
    return found


def others() -> dict[str, str]:
    """What there is besides -> the test that shows it."""
    lines = OTHER.replace("\\\n", "").strip().splitlines()
    pairs = [line.split(": ", 1) for line in lines if line.startswith(" ")]
    return {what.strip(): test for what, test in pairs}
