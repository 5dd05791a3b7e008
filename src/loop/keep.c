/* A clean poller is kept for the thread's next loop.

   uv_loop_init and uv_loop_close cost more than everything else a short-lived
   loop does, and test suites make a loop a test.

   1. At most one is kept an interpreter, in the dict of the thread that closed
      the loop; it is freed when that thread ends.
   2. Only a poller with no watch but its own is kept, and only its own thread
      and process may take it: anything else frees it.
   3. The count outlives the module (the thread's dict may be cleared after
      it), so it has an owner count of its own. */
#include "loop/loop.h"
#include "py/errors.h"

#include <stdlib.h>
#include <unistd.h>

struct FlKeep {
    atomic_int owners; /* the module's state and each capsule */
    atomic_int kept;
};

#define CAPSULE_NAME "fastloop.poller"

int
fl_keep_init(FlState *state)
{
    state->keep = calloc(1, sizeof(*state->keep));
    if (state->keep == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    atomic_init(&state->keep->owners, 1);
    atomic_init(&state->keep->kept, 0);
    return 0;
}

static void
keep_release(struct FlKeep *keep)
{
    if (keep != NULL && atomic_fetch_sub(&keep->owners, 1) == 1) {
        free(keep);
    }
}

void
fl_keep_free(FlState *state)
{
    keep_release(state->keep);
    state->keep = NULL;
}

static void
capsule_free(PyObject *capsule)
{
    FlPoller *poller = PyCapsule_GetPointer(capsule, CAPSULE_NAME);
    struct FlKeep *keep = PyCapsule_GetContext(capsule);
    if (poller != NULL) {
        fl_poller_free(poller);
        atomic_store(&keep->kept, 0);
    }
    keep_release(keep);
}

/* Put a poller into the thread's dict.  The caller has set keep->kept. */
static int
store(FlState *state, FlPoller *poller)
{
    PyObject *dict = PyThreadState_GetDict();
    PyObject *capsule =
        dict == NULL ? NULL : PyCapsule_New(poller, CAPSULE_NAME, NULL);
    if (capsule == NULL) {
        return -1;
    }
    int code = PyDict_SetItem(dict, state->names._kept_poller, capsule);
    /* Without a destructor a capsule that failed leaves the poller to the
       caller; with one it owns it. */
    if (code == 0) {
        atomic_fetch_add(&state->keep->owners, 1);
        (void)PyCapsule_SetContext(capsule, state->keep);
        (void)PyCapsule_SetDestructor(capsule, capsule_free);
    }
    Py_DECREF(capsule);
    return code;
}

void
fl_keep_give(FlLoop *loop)
{
    FlPoller *poller = loop->poller;
    struct FlKeep *keep = loop->state->keep;
    loop->poller = NULL;
    int none = 0;
    /* Without a name the module was cleared: the interpreter exits. */
    if (keep == NULL || loop->state->names._kept_poller == NULL
        || (loop->off & FL_OFF_KEPT_LOOP) || loop->debug
        || poller->pid != (int)getpid() || !fl_poller_settle(poller)
        || !atomic_compare_exchange_strong(&keep->kept, &none, 1))
    {
        fl_poller_free(poller);
        return;
    }
    /* A destructor may bring us here with an error set, which is not ours. */
    PyObject *exc = PyErr_Occurred() ? PyErr_GetRaisedException() : NULL;
    if (store(loop->state, poller) < 0) {
        PyErr_Clear(); /* keeping is an optimisation: do without */
        atomic_store(&keep->kept, 0);
        fl_poller_free(poller);
    }
    if (exc != NULL) {
        PyErr_SetRaisedException(exc);
    }
}

/* The thread's kept poller, taken out of its dict; NULL when there is none
   (or, which is no matter here, when looking failed). */
static FlPoller *
take(FlState *state)
{
    if (state->keep == NULL || atomic_load(&state->keep->kept) == 0) {
        return NULL;
    }
    PyObject *dict = PyThreadState_GetDict();
    PyObject *capsule = NULL;
    if (dict == NULL
        || PyDict_GetItemRef(dict, state->names._kept_poller, &capsule) <= 0)
    {
        PyErr_Clear();
        return NULL;
    }
    FlPoller *poller = PyCapsule_GetPointer(capsule, CAPSULE_NAME);
    if (poller != NULL && poller->pid == (int)getpid()) {
        (void)PyCapsule_SetDestructor(capsule, NULL);
        keep_release(PyCapsule_GetContext(capsule));
        atomic_store(&state->keep->kept, 0);
    }
    else {
        poller = NULL; /* the parent's: dropping the capsule frees it */
    }
    if (PyDict_DelItem(dict, state->names._kept_poller) < 0) {
        PyErr_WriteUnraisable(NULL);
    }
    Py_DECREF(capsule);
    return poller;
}

int
fl_keep_take(FlLoop *loop)
{
    bool use_timerfd = !(loop->off & FL_OFF_TIMERFD);
    loop->poller = NULL;
    if (!(loop->off & FL_OFF_KEPT_LOOP)) {
        loop->poller = take(loop->state);
    }
    if (loop->poller != NULL) {
        loop->poller->use_timerfd = use_timerfd;
        return 0;
    }
    int code = fl_poller_open(&loop->poller, use_timerfd);
    return code < 0 ? fl_raise_errno(code) : 0;
}
