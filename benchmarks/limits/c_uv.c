/* A plain C echo server on libuv: what a loop on libuv could reach at best.
 *
 *     c_uv [--cpu N]
 *
 * It writes at once with uv_try_write, and hands libuv a copy of what the
 * kernel did not take; reading waits until that is written.
 */
#include "limit.h"

#include <stdlib.h>
#include <string.h>
#include <uv.h>


typedef struct {
    uv_write_t request;
    char data[];
} Kept;

static char scratch[LIMIT_CHUNK];

static void
on_closed(uv_handle_t *handle)
{
    free(handle);
}

static void
drop(uv_stream_t *stream)
{
    if (!uv_is_closing((uv_handle_t *)stream)) {
        uv_close((uv_handle_t *)stream, on_closed);
    }
}

static void
on_wanted(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    (void)handle;
    (void)suggested;
    *buffer = uv_buf_init(scratch, LIMIT_CHUNK);
}

static void on_read(uv_stream_t *, ssize_t, const uv_buf_t *);

static void
on_written(uv_write_t *request, int status)
{
    uv_stream_t *stream = request->handle;
    free(request);
    if (status != 0 || uv_read_start(stream, on_wanted, on_read) != 0) {
        drop(stream);
    }
}

static void
keep(uv_stream_t *stream, const char *data, size_t size)
{
    Kept *kept = malloc(sizeof *kept + size);
    if (kept == NULL) {
        limit_fail("malloc", "no memory");
    }
    memcpy(kept->data, data, size);
    uv_buf_t buffer = uv_buf_init(kept->data, (unsigned)size);
    uv_read_stop(stream);
    if (uv_write(&kept->request, stream, &buffer, 1, on_written) != 0) {
        free(kept);
        drop(stream);
    }
}

static void
on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *buffer)
{
    if (count == 0) {
        return;
    }
    if (count < 0) {
        drop(stream);
        return;
    }
    uv_buf_t all = uv_buf_init(buffer->base, (unsigned)count);
    int put = uv_try_write(stream, &all, 1);
    if (put < 0 && put != UV_EAGAIN) {
        drop(stream);
        return;
    }
    put = put < 0 ? 0 : put;
    if (put < count) {
        keep(stream, buffer->base + put, (size_t)(count - put));
    }
}

static void
on_connection(uv_stream_t *listener, int status)
{
    uv_tcp_t *client = malloc(sizeof *client);
    if (client == NULL || status != 0) {
        limit_fail("accept", client ? uv_strerror(status) : "no memory");
    }
    uv_tcp_init(listener->loop, client);
    int code = uv_accept(listener, (uv_stream_t *)client);
    if (code == 0) {
        uv_tcp_nodelay(client, 1);
        code = uv_read_start((uv_stream_t *)client, on_wanted, on_read);
    }
    if (code != 0) {
        drop((uv_stream_t *)client);
    }
}

int
main(int argc, char **argv)
{
    uv_tcp_t listener;
    struct sockaddr_in address;
    int size = sizeof address;
    uv_loop_t *loop = uv_default_loop();
    limit_prepare(argc, argv);
    uv_ip4_addr("127.0.0.1", 0, &address);
    uv_tcp_init(loop, &listener);
    int code = uv_tcp_bind(&listener, (struct sockaddr *)&address, 0);
    if (code == 0) {
        code = uv_listen((uv_stream_t *)&listener, SOMAXCONN, on_connection);
    }
    if (code == 0) {
        code =
            uv_tcp_getsockname(&listener, (struct sockaddr *)&address, &size);
    }
    if (code != 0) {
        limit_fail("listen", uv_strerror(code));
    }
    limit_announce(ntohs(address.sin_port));
    return uv_run(loop, UV_RUN_DEFAULT);
}
