/* Any bytes as the spec of a task: refused, or with inputs and points that fit each other. */
#include <stdlib.h>
#include <string.h>

#include "agent/spec.h"
#include "perf/points.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* The points of a spec that was taken, as its task reads them: refused with a line, or as they are written again. */
static void read_points(const uint8_t *data, size_t n, size_t n_points)
{
    json_t *j = json_loadb((const char *)data, n, JSON_REJECT_DUPLICATES, NULL);
    uint64_t *index = calloc(2 * n_points, sizeof(*index));
    struct arch *arch = calloc(2 * n_points, sizeof(*arch));
    struct point *p = calloc(n_points, sizeof(*p));
    struct err e = { 0 };
    if (!j || !index || !arch || !p)
        abort();
    int r = points_read(j, index, arch, &e);
    if (r < 0 && !e.text[0])
        abort();
    for (size_t i = 0; r == 0 && i < n_points; i++) {
        p[i] = (struct point){ index[i], arch[i] };
        if (index[i] > INT64_MAX) /* no sweep has so many; JSON's numbers end there */
            r = 1;
    }
    json_decref(j);
    for (int lists = 0; r == 0 && lists < 2; lists++) {
        struct buf b = BUF_INIT(256 << 20);
        if (buf_adds(&b, "{") < 0 || points_text(p, n_points, lists, &b) < 0 ||
            buf_adds(&b, "}") < 0)
            abort();
        j = json_loadb((const char *)b.data, b.len, JSON_REJECT_DUPLICATES, NULL);
        if (!j || points_read(j, index + n_points, arch + n_points, &e) < 0 ||
            memcmp(index, index + n_points, n_points * sizeof(*index)) != 0 ||
            memcmp(arch, arch + n_points, n_points * sizeof(*arch)) != 0)
            abort();
        json_decref(j);
        buf_clear(&b);
    }
    free(index);
    free(arch);
    free(p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    for (int kind = 0; kind < CORE_KINDS; kind++) {
        struct run_grant g = { .kind = (enum core_kind)kind };
        struct id *inputs = NULL;
        size_t n_inputs = 0;
        struct err e;
        int r = spec_parse(&g, data, n, &inputs, &n_inputs, &e);
        bool needs = kind == CORE_POINTS || kind == CORE_TRACE;
        if (r == 0 &&
            ((needs && !n_inputs) || (kind == CORE_POINTS && (!g.points || n_inputs != 1))))
            abort();
        if (r < 0 && inputs)
            abort();
        if (r == 0 && kind == CORE_POINTS)
            read_points(data, n, g.points);
        free(inputs);
    }
    return 0;
}
