/* Sending what is corked: see cork.h. */
#include "core/cork.h"

#include "base/list.h"
#include "core/loop.h"

void
fl_loop_flush_corked_now(FlLoop *loop)
{
    FlList *link;
    /* One at a time: what reports a failed send may run Python, which finds
       the other streams corked and may flush them, or cork others. */
    while ((link = fl_list_pop(&loop->cork.streams)) != NULL) {
        loop->cork.send(link);
    }
}
