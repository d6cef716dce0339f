/* A stand-in for QEMU and its guest: speaks the monitor, the control line and the trace ring, and fails on demand.
 * FAKE_QEMU names the way: chatty (a console without end) ok panic silent mute die exit drops internal unpatched badfile noise badring fail
 * refuse nostart long. long=FILE: a log of some 20 MB that does not pack; its second half when FILE exists. text=FILE: the same
 * by QEMU's text log (-D). long= with a text log: half of that first, then all of the ring's, then the rest. */
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "collect/ring.h"

static int con = -1, ctl = -1, mon = -1, ring = -1;
static const char *mode, *log_path;

static bool is(const char *m)
{
    return strcmp(mode, m) == 0;
}

static int number(const char *s, const char *key)
{
    const char *p = strstr(s, key);
    return p ? atoi(p + strlen(key)) : -1;
}

static void put(int fd, const char *text)
{
    if (write(fd, text, strlen(text)) < 0)
        _exit(3);
}

static void trace(uint64_t n)
{
    struct stat st;
    if (ring < 0 || fstat(ring, &st) < 0)
        return;
    struct ring_header *h =
        mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, ring, 0);
    if (h == MAP_FAILED)
        exit(3);
    struct log_event *rec = (struct log_event *)((char *)h + h->data_off);
    for (int i = 0; i < 1000 && h->enable != RING_ON; i++)
        usleep(1000);
    if (h->enable != RING_ON)
        return;
    uint64_t r = 1;
    for (uint64_t i = 0; i < n; i++) {
        bool large = strncmp(mode, "long=", 5) == 0;
        while (large && h->head - __atomic_load_n(&h->tail, __ATOMIC_ACQUIRE) >= h->n_records / 2)
            usleep(1000);
        while (large && i == n / 2 && access(mode + 5, F_OK) < 0)
            usleep(10000);
        if (large) { /* the least orderly of addresses */
            r = r * 6364136223846793005u + 1442695040888963407u;
            rec[h->head & (h->n_records - 1)] =
                (struct log_event){ .time_ns = 1000 * i,
                                    .sid = 0x10,
                                    .kind = i ? LOG_PAGE_HIT : LOG_CC_UPDATE,
                                    .domain = 3,
                                    .p = { i ? r >> 20 << 12 : 0x301,
                                           i ? (r >> 7 << 12) | 3 : 0x6024001,
                                           i ? ~0xfffull : 0 } };
            __atomic_store_n(&h->head, h->head + 1, __ATOMIC_RELEASE);
            continue;
        }
        rec[h->head & (h->n_records - 1)] =
            (struct log_event){ .time_ns = 1000 * i,
                                .sid = (uint16_t)(0x10 + 8 * (i % 2)),
                                .kind = i ? LOG_PAGE_HIT : LOG_CC_UPDATE,
                                .domain = 3,
                                .p = { i ? i << 12 : 0x301, i ? 0x1000003 : 0x6024001,
                                       i ? ~0xfffull : 0 } };
        __atomic_store_n(&h->head, h->head + 1, __ATOMIC_RELEASE);
    }
    if (is("drops"))
        __atomic_store_n(&h->dropped, 7, __ATOMIC_RELEASE);
    if (is("badring"))
        __atomic_store_n(&h->head, h->head + ((uint64_t)1 << 40), __ATOMIC_RELEASE);
}

enum { TEXT_EVENTS = 24000 };

/* Events from..to of TEXT_EVENTS, and as many lines of something else that has no order. */
static void text(const char *path, unsigned from, unsigned to)
{
    static const char digits[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+/";
    FILE *f = fopen(path, from ? "a" : "w");
    uint64_t r = 1 + from;
    char noise[1001] = "";
    if (!f)
        exit(3);
    if (!from)
        fprintf(f, "vtd_iotlb_cc_update IOTLB context update bus 0x0 devfn 0x10 high 0x102 low"
                   " 0x10000 gen 0 -> gen 1\n");
    for (unsigned i = from ? from : 1; i < to; i++) {
        for (size_t k = 0; k < sizeof(noise) - 1; k++) {
            r = r * 6364136223846793005u + 1442695040888963407u;
            noise[k] = digits[r >> 58];
        }
        fprintf(f,
                "vtd_iotlb_page_update IOTLB page update sid 0x10 iova 0x%x000 slpte 0x%x003 "
                "level 0x1 domain 0x1\n%s\n",
                i, i, noise);
        fflush(f);
    }
    fclose(f);
}

static void control(char *line)
{
    if (strcmp(line, "GO") == 0) {
        if (is("die"))
            raise(SIGKILL);
        if (is("exit"))
            exit(4);
        if (is("mute") || is("internal"))
            return;
        for (int i = 0; is("chatty") && i < 320000; i++)
            put(con, "a guest that has very much to say about nothing in particular\r\n");
        for (int i = 0; is("noise") && i < 10000; i++)
            put(ctl, "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");
        bool large = strncmp(mode, "long=", 5) == 0, as_text = strncmp(mode, "text=", 5) == 0;
        bool writes = log_path && (large || as_text);
        if (writes)
            text(log_path, 0, TEXT_EVENTS / 2);
        while (as_text && access(mode + 5, F_OK) < 0)
            usleep(10000);
        if (!as_text)
            trace(large ? 2000000 : 1000);
        if (writes)
            text(log_path, TEXT_EVENTS / 2, TEXT_EVENTS);
        put(ctl, "END 0\n");
    } else if (strcmp(line, "OK") == 0) {
        if (is("badfile"))
            put(ctl, "FILE ../../etc/passwd 5\n");
        put(ctl, is("fail") ? "FILE script.exit 2\n1\n" : "FILE script.exit 2\n0\n");
        put(ctl, "FILE script.txt 6\nhello\nDONE\n");
        exit(0);
    }
}

static void monitor(char *line)
{
    int id = number(line, "\"id\": ");
    if (id < 0)
        id = number(line, "\"id\":");
    char b[200];
    snprintf(b, sizeof(b),
             "{\"event\": \"NOISE\"}\r\n{\"return\": {\"status\": \"%s\"}, \"id\": %d}\r\n",
             is("internal") ? "internal-error" : "running", id);
    put(mon, b);
}

int main(int argc, char **argv)
{
    mode = getenv("FAKE_QEMU");
    if (!mode)
        mode = "ok";
    if (argc > 1 && strcmp(argv[1], "--version") == 0) {
        puts("QEMU emulator version 7.2.99 (stand-in)");
        return 0;
    }
    if (argc > 2 && strcmp(argv[2], "intel-iommu,help") == 0) {
        puts("  caching-mode=<bool>");
        if (!is("unpatched"))
            puts("  trace-ring=<str>");
        return 0;
    }
    for (int i = 1; i < argc; i++) {
        if (strstr(argv[i], "id=con,fd="))
            con = number(argv[i], "fd=");
        if (strstr(argv[i], "id=ctl,fd="))
            ctl = number(argv[i], "fd=");
        if (strstr(argv[i], "id=mon,fd="))
            mon = number(argv[i], "fd=");
        if (strstr(argv[i], "trace-ring="))
            ring = number(argv[i], "trace-ring=");
        if (strcmp(argv[i], "-D") == 0 && i + 1 < argc)
            log_path = argv[i + 1];
    }
    if (is("nostart")) {
        fprintf(stderr, "qemu: cannot set up guest memory: Cannot allocate memory\n");
        return 1;
    }
    put(mon, "{\"QMP\": {\"version\": {}}}\r\n");
    put(con, "Linux version 6.1\r\n");
    if (is("panic"))
        put(con, "[    1.0] Kernel panic - not syncing: Attempted to kill init!\r\n");
    if (!is("silent"))
        put(ctl, is("refuse") ? "BOOT\nFAIL no network interface 1\n" : "BOOT\nREADY\n");
    struct pollfd p[2] = { { .fd = ctl, .events = POLLIN }, { .fd = mon, .events = POLLIN } };
    static char text[2][65536];
    size_t len[2] = { 0 };
    for (;;) {
        if (poll(p, 2, -1) < 0)
            continue;
        for (int i = 0; i < 2; i++) {
            if (!p[i].revents)
                continue;
            ssize_t n = read(p[i].fd, text[i] + len[i], sizeof(text[i]) - len[i] - 1);
            if (n <= 0)
                return 5;
            len[i] += (size_t)n;
            text[i][len[i]] = 0;
            char *nl;
            while ((nl = strchr(text[i], '\n'))) {
                *nl = 0;
                if (i)
                    monitor(text[i]);
                else
                    control(text[i]);
                len[i] -= (size_t)(nl + 1 - text[i]);
                memmove(text[i], nl + 1, len[i] + 1);
            }
        }
    }
}
