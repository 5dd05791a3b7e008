/* Moves bytes one way as fast as they go: to the server, or from it.
 *
 *     bulk_load --port P --server PID --connections N [--receive 1]
 *
 * What is counted is KiB, so that a window never counts none.
 */
#include "load.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

static uint64_t total;

/* Level-triggered, one call each time: a server that keeps up would hold a
 * generator that goes on until the socket would block. */
static void
step(Load *load, LoadConnection *connection)
{
    if (load->options.receive) {
        total += load_receive(load, connection);
    }
    else {
        ssize_t count =
            send(connection->fd, load->scratch, LOAD_SCRATCH, MSG_NOSIGNAL);
        if (count < 0 && errno != EAGAIN) {
            load_fail("send: %s", strerror(errno));
        }
        total += count > 0 ? (uint64_t)count : 0;
    }
    load->answered = total / 1024;
}

int
main(int argc, char **argv)
{
    Load load = {0};
    load_options(&load.options, argc, argv);
    load.events = load.options.receive ? EPOLLIN : EPOLLOUT;
    return load_run(&load, step);
}
