#include "perf/points.h"

#include <inttypes.h>
#include <string.h>

enum { DIGITS_MAX = 21 }; /* of a u64, and what stands in front of it */

/* One after the other, as arch_get() numbers them. */
static const uint32_t *values(const struct point *p)
{
    return (const uint32_t *)(const void *)&p->arch;
}

/* c, then v in digits. */
static uint8_t *put_number(uint8_t *p, char c, uint64_t v)
{
    uint8_t digits[DIGITS_MAX], *d = digits + sizeof(digits);
    do {
        *--d = (uint8_t)('0' + v % 10);
        v /= 10;
    } while (v);
    *--d = (uint8_t)c;
    size_t n = (size_t)(digits + sizeof(digits) - d);
    memcpy(p, d, n);
    return p + n;
}

static int whole_text(const struct point p[], size_t n, struct buf *out)
{
    int r = buf_adds(out, "\"points\":[");
    for (size_t i = 0; r >= 0 && i < n; i++) {
        char text[ARCH_TEXT_MAX];
        r = buf_addf(out, "%s{\"index\":%" PRIu64 ",\"arch\":", i ? "," : "", p[i].index);
        size_t len = arch_text_json(&p[i].arch, text);
        text[len++] = '}';
        if (r >= 0)
            r = buf_add(out, text, len);
    }
    return r < 0 ? r : buf_adds(out, "]");
}

static int lists_text(const struct point p[], size_t n, struct buf *out)
{
    char text[ARCH_TEXT_MAX];
    unsigned vary[ARCH_N], n_vary = 0;
    uint32_t differs[ARCH_N] = { 0 };
    for (size_t i = 1; i < n; i++)
        for (unsigned k = 0; k < ARCH_N; k++)
            differs[k] |= values(&p[i])[k] ^ values(&p[0])[k];
    for (unsigned k = 0; k < ARCH_N; k++)
        if (differs[k])
            vary[n_vary++] = k;
    arch_text_json(&p[0].arch, text);
    int r = buf_addf(out, "\"arch\":%s,\"vary\":[", text);
    for (unsigned k = 0; r >= 0 && k < n_vary; k++)
        r = buf_addf(out, "%s\"%s\"", k ? "," : "", arch_names[vary[k]]);
    if (r >= 0)
        r = buf_adds(out, "],\"points\":[");
    for (size_t i = 0; r >= 0 && i < n; i++) {
        uint8_t line[2 + DIGITS_MAX * (1 + ARCH_N)], *at = line;
        if (i)
            *at++ = ',';
        at = put_number(at, '[', p[i].index);
        for (unsigned k = 0; k < n_vary; k++)
            at = put_number(at, ',', values(&p[i])[vary[k]]);
        *at++ = ']';
        r = buf_add(out, line, (size_t)(at - line));
    }
    return r < 0 ? r : buf_adds(out, "]");
}

int points_text(const struct point p[], size_t n, bool lists, struct buf *out)
{
    return lists ? lists_text(p, n, out) : whole_text(p, n, out);
}

int points_count(const json_t *spec, size_t max, struct err *e)
{
    const json_t *points = json_object_get(spec, "points");
    size_t n = json_array_size(points);
    if (!json_is_array(points) || n == 0 || n > max)
        return err_set(e, SF_EFORMAT, "task spec: 'points' is no list of 1 to %zu points", max);
    return (int)n;
}

static int number(const json_t *j, uint64_t max, uint64_t *ret)
{
    json_int_t v = json_integer_value(j);
    if (!json_is_integer(j) || v < 0 || (uint64_t)v > max)
        return -SF_EFORMAT;
    *ret = (uint64_t)v;
    return 0;
}

/* A point that is a list: its index, then its value of each key of vary. */
static int read_list(const json_t *list, const unsigned vary[], size_t n_vary, size_t i,
                     uint64_t *index, struct arch *arch, struct err *e)
{
    uint64_t v;
    if (json_array_size(list) != 1 + n_vary)
        return err_set(e, SF_EFORMAT, "task spec: point %zu: %zu numbers, expected %zu", i,
                       json_array_size(list), 1 + n_vary);
    if (number(json_array_get(list, 0), INT64_MAX, index) < 0)
        return err_set(e, SF_EFORMAT, "task spec: point %zu: index: not a number", i);
    for (size_t k = 0; k < n_vary; k++) {
        if (number(json_array_get(list, k + 1), arch_highest(vary[k]), &v) < 0)
            return err_set(e, SF_EFORMAT, "task spec: point %zu: %s: no number up to %" PRIu32, i,
                           arch_names[vary[k]], arch_highest(vary[k]));
        arch_put(arch, vary[k], (uint32_t)v);
    }
    return 0;
}

int points_read(const json_t *spec, uint64_t index[], struct arch arch[], struct err *e)
{
    const json_t *points = json_object_get(spec, "points"), *vary = json_object_get(spec, "vary"),
                 *p;
    unsigned key[ARCH_N];
    struct arch base;
    size_t n_vary = json_array_size(vary), i;
    int r;
    if ((vary && !json_is_array(vary)) || n_vary > ARCH_N)
        return err_set(e, SF_EFORMAT, "task spec: 'vary' is no list of up to %d keys", (int)ARCH_N);
    for (i = 0; i < n_vary; i++) {
        const char *name = json_string_value(json_array_get(vary, i));
        int k = name ? arch_key(name) : -1;
        if (k < 0)
            return err_set(e, SF_EFORMAT, "task spec: 'vary' names no key '%.64s'",
                           name ? name : "");
        key[i] = (unsigned)k;
    }
    if (vary && (r = arch_from_json(json_object_get(spec, "arch"), &base, e)) < 0)
        return err_wrap(e, r, "task spec");
    json_array_foreach (points, i, p) {
        if (vary) {
            arch[i] = base;
            r = read_list(p, key, n_vary, i, &index[i], &arch[i], e);
        } else {
            r = json_get_u64(p, "index", &index[i], e);
            if (r == 0)
                r = arch_from_json(json_object_get(p, "arch"), &arch[i], e);
            if (r < 0)
                r = err_wrap(e, r, "task spec: point %zu", i);
        }
        if (r < 0)
            return r;
    }
    return 0;
}
