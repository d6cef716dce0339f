/* The small parts of the runner: archive writer, ring reader, monitor client. */
#include <criterion/criterion.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "collect/cpio.h"
#include "collect/qmp.h"
#include "collect/ring.h"

Test(cpio, an_archive_is_aligned_and_always_the_same)
{
    struct buf a = BUF_INIT(65536), b = BUF_INIT(65536);
    for (int i = 0; i < 2; i++) {
        struct buf *x = i ? &b : &a;
        cr_assert_eq(cpio_add(x, 1, "run.conf", 0100644, "A='1'\n", 6), 0);
        cr_assert_eq(x->len % 4, 0);
        cr_assert_eq(cpio_end(x), 0);
    }
    cr_assert_eq(a.len, 512);
    cr_assert_eq(b.len, a.len);
    cr_assert_eq(memcmp(a.data, b.data, a.len), 0);
    /* magic, then 13 fields of 8 hex digits: size is the 7th, length of the name the 12th */
    cr_assert_eq(memcmp(a.data, "070701", 6), 0);
    cr_assert_eq(memcmp(a.data + 6 + 6 * 8, "00000006", 8), 0);
    cr_assert_eq(memcmp(a.data + 6 + 11 * 8, "00000009", 8), 0);
    cr_assert_str_eq((char *)a.data + 110, "run.conf");
    cr_assert_eq(memcmp(a.data + 120, "A='1'\n", 6), 0);
    buf_clear(&a);
    buf_clear(&b);
}

Test(cpio, a_full_buffer_is_left_as_it_was)
{
    struct buf a = BUF_INIT(200);
    cr_assert_eq(cpio_add(&a, 1, "x", 0100644, "yy", 2), 0);
    size_t n = a.len;
    cr_assert_lt(cpio_add(&a, 2, "longer/name/than/there/is/room/for", 0100644, "zz", 2), 0);
    cr_assert_eq(a.len, n);
    buf_clear(&a);
}

Test(ring, records_come_in_order_around_the_end)
{
    struct ring r;
    struct err e = { 0 };
    cr_assert_eq(ring_new(&r, 256, &e), 0, "%s", e.text);
    struct log_event *rec = (struct log_event *)r.rec;
    uint64_t next = 0, seen = 0;
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 200; i++, next++)
            rec[next & 255].time_ns = next;
        __atomic_store_n(&r.h->head, next, __ATOMIC_RELEASE);
        const struct log_event *ev;
        int64_t n;
        while ((n = ring_peek(&r, &ev, &e)) > 0) {
            for (int64_t i = 0; i < n; i++)
                cr_assert_eq(ev[i].time_ns, seen++);
            ring_release(&r, (uint64_t)n);
        }
        cr_assert_eq(n, 0);
        cr_assert_eq(r.h->tail, next);
    }
    cr_assert_eq(seen, 4000);
    ring_clear(&r);
}

Test(ring, a_head_that_laps_the_reader_is_damage)
{
    struct ring r;
    struct err e = { 0 };
    const struct log_event *ev;
    cr_assert_eq(ring_new(&r, 256, &e), 0);
    r.h->head = 257;
    cr_assert_eq(ring_peek(&r, &ev, &e), -SF_EINTEGRITY);
    ring_clear(&r);
}

Test(ring, what_qemu_writes_in_the_header_cannot_move_the_reader_out)
{
    struct ring r;
    struct err e = { 0 };
    const struct log_event *ev;
    cr_assert_eq(ring_new(&r, 256, &e), 0);
    r.h->n_records = (uint64_t)1 << 40;
    r.h->tail = 12345;
    r.h->head = 3;
    cr_assert_eq(ring_peek(&r, &ev, &e), 3);
    cr_assert_eq(ev, r.rec);
    ring_clear(&r);
}

static int answer(const char *text, struct qmp *q, int sv[2])
{
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
    qmp_init(q, sv[0]);
    cr_assert_eq(write(sv[1], text, strlen(text)), (ssize_t)strlen(text));
    return 0;
}

Test(qmp, greets_and_reads_over_events)
{
    struct qmp q;
    int sv[2];
    struct err e = { 0 };
    json_t *ret = NULL;
    answer("{\"QMP\":{}}\r\n{\"event\":\"X\"}\r\n{\"return\":{},\"id\":1}\r\n{\"id\":2,\"return\":{"
           "\"status\":\"running\"}}\r\n",
           &q, sv);
    cr_assert_eq(qmp_hello(&q, 1000, &e), 0, "%s", e.text);
    cr_assert_eq(qmp_call(&q, "query-status", NULL, 1000, &ret, &e), 0, "%s", e.text);
    cr_assert_str_eq(json_string_value(json_object_get(ret, "status")), "running");
    json_decref(ret);
    qmp_clear(&q);
    close(sv[0]);
    close(sv[1]);
}

Test(qmp, says_what_went_wrong)
{
    static const struct {
        const char *text;
        bool close;
        int code;
        const char *says;
    } rows[] = {
        { "hello\n", false, SF_EFORMAT, "no JSON object" },
        { "[1]\n", false, SF_EFORMAT, "no JSON object" },
        { "{\"x\":1}\n", false, SF_EFORMAT, "does not greet" },
        { "{\"QMP\":{}}\n", true, EPIPE, "ended" },
        { "{\"QMP\":{}}\n", false, ETIMEDOUT, "does not answer" },
        { "{\"QMP\":{}}\n{\"id\":1,\"error\":{\"desc\":\"no such thing\"}}\n", false, SF_EFAILED,
          "no such thing" },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct qmp q;
        int sv[2];
        struct err e = { 0 };
        answer(rows[i].text, &q, sv);
        if (rows[i].close)
            shutdown(sv[1], SHUT_WR);
        cr_expect_eq(qmp_hello(&q, 50, &e), -rows[i].code, "row %zu: %s", i, e.text);
        cr_expect_not_null(strstr(e.text, rows[i].says), "row %zu: %s", i, e.text);
        qmp_clear(&q);
        close(sv[0]);
        close(sv[1]);
    }
}

Test(qmp, a_line_without_an_end_is_refused)
{
    struct qmp q;
    int sv[2];
    struct err e = { 0 };
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
    qmp_init(&q, sv[0]);
    pid_t pid = fork();
    if (pid == 0) {
        char b[4096];
        memset(b, 'x', sizeof(b));
        close(sv[0]);
        while (send(sv[1], b, sizeof(b), MSG_NOSIGNAL) > 0)
            ;
        _exit(0);
    }
    close(sv[1]);
    cr_assert_eq(qmp_hello(&q, 20000, &e), -SF_EFORMAT, "%s", e.text);
    qmp_clear(&q);
    close(sv[0]);
}
