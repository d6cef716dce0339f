#include "collect/qmp.h"

#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/base/clean.h"
#include "proto/base/clock.h"

enum { QMP_MAX = 1 << 20 };

void qmp_init(struct qmp *q, int fd)
{
    *q = (struct qmp){ .fd = fd };
    buf_init(&q->in, QMP_MAX);
}

void qmp_clear(struct qmp *q)
{
    buf_clear(&q->in);
}

/* One line as an object. */
static int next_message(struct qmp *q, uint64_t end_ms, json_t **ret, struct err *e)
{
    for (;;) {
        uint8_t *nl = q->in.len ? memchr(q->in.data, '\n', q->in.len) : NULL;
        if (nl) {
            size_t n = (size_t)(nl - q->in.data);
            json_error_t je;
            *ret = json_loadb((char *)q->in.data, n, 0, &je);
            memmove(q->in.data, nl + 1, q->in.len - n - 1);
            q->in.len -= n + 1;
            if (!json_is_object(*ret)) {
                json_decrefp(ret); /* the caller's cleanup must not see it again */
                return err_set(e, SF_EFORMAT, "QEMU: answers what is no JSON object");
            }
            return 0;
        }
        uint64_t now = clock_mono_ms();
        struct pollfd p = { .fd = q->fd, .events = POLLIN };
        int r = now < end_ms ? poll(&p, 1, (int)(end_ms - now)) : 0;
        if (r == 0)
            return err_set(e, ETIMEDOUT, "QEMU: its monitor does not answer");
        if (r < 0) {
            if (errno == EINTR)
                continue;
            return err_sys(e, errno, "QEMU: monitor");
        }
        uint8_t *room = buf_reserve(&q->in, 4096);
        if (!room)
            return err_set(e, SF_EFORMAT, "QEMU: answers more than %d bytes in one line", QMP_MAX);
        ssize_t n = recv(q->fd, room, 4096, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno == ECONNRESET))
            return err_set(e, EPIPE, "QEMU: ended");
        if (n > 0)
            q->in.len += (size_t)n;
        else if (errno != EAGAIN && errno != EINTR)
            return err_sys(e, errno, "QEMU: monitor");
    }
}

int qmp_hello(struct qmp *q, int timeout_ms, struct err *e)
{
    CLEANUP(json_decrefp) json_t *m = NULL;
    int r = next_message(q, clock_mono_ms() + (uint64_t)timeout_ms, &m, e);
    if (r < 0)
        return r;
    if (!json_object_get(m, "QMP"))
        return err_set(e, SF_EFORMAT, "QEMU: its monitor does not greet");
    return qmp_call(q, "qmp_capabilities", NULL, timeout_ms, NULL, e);
}

int qmp_call(struct qmp *q, const char *command, json_t *args, int timeout_ms, json_t **ret,
             struct err *e)
{
    uint64_t id = ++q->next_id, end = clock_mono_ms() + (uint64_t)timeout_ms;
    CLEANUP(json_decrefp)
    json_t *m =
        json_pack("{s:s, s:I, s:o*}", "execute", command, "id", (json_int_t)id, "arguments", args);
    CLEANUP(freep) char *text = m ? json_dumps(m, JSON_COMPACT) : NULL;
    if (!text)
        return err_set(e, ENOMEM, "QEMU: command '%s'", command);
    size_t n = strlen(text);
    text[n] = '\n'; /* in place of the final 0: one write, one line */
    ssize_t w = send(q->fd, text, n + 1, MSG_NOSIGNAL);
    if (w != (ssize_t)n + 1)
        return err_set(e, EPIPE, "QEMU: ended");
    for (;;) {
        CLEANUP(json_decrefp) json_t *a = NULL;
        int r = next_message(q, end, &a, e);
        if (r < 0)
            return r;
        json_t *jid = json_object_get(a, "id");
        if (!json_is_integer(jid) || (uint64_t)json_integer_value(jid) != id)
            continue; /* an event */
        json_t *error = json_object_get(a, "error");
        if (error) {
            const char *d = json_string_value(json_object_get(error, "desc"));
            return err_set(e, SF_EFAILED, "QEMU: %s: %s", command, d ? d : "error");
        }
        if (ret)
            *ret = json_incref(json_object_get(a, "return"));
        return 0;
    }
}
