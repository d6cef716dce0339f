/* deploy/provider: the pool, the batches and the document that all kinds of places share. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "deploy/provider.h"
#include "proto/base/clean.h"

enum { PLACES = 12 };

/* Places that count who is in at once; the bits of fail say which of them fail. */
struct fake {
    struct provider base;
    pthread_mutex_t lock;
    unsigned in, most, runs[PLACES];
    unsigned fail;
};

static const char *name(const struct provider *p, size_t place)
{
    static const char *const names[PLACES] = { "p0", "p1", "p2", "p3", "p4",  "p5",
                                               "p6", "p7", "p8", "p9", "p10", "p11" };
    (void)p;
    return names[place];
}

static void run(const struct provider *base, size_t place, enum place_verb verb,
                struct place_result *ret)
{
    struct fake *f = (struct fake *)base;
    pthread_mutex_lock(&f->lock);
    f->runs[place]++;
    if (++f->in > f->most)
        f->most = f->in;
    pthread_mutex_unlock(&f->lock);
    usleep(20000);
    pthread_mutex_lock(&f->lock);
    f->in--;
    pthread_mutex_unlock(&f->lock);
    ret->step = "up";
    ret->bytes_sent = 10;
    if (f->fail & 1u << place) {
        ret->status = PLACE_FAILED;
        ret->code = SF_EREFUSED;
        snprintf(ret->message, sizeof(ret->message), "no");
        snprintf(ret->fix, sizeof(ret->fix), "ask");
    } else if (verb == PLACE_UP) {
        ret->status = PLACE_CHANGED;
    }
}

static struct fake fake_new(unsigned fail)
{
    return (struct fake){ .base = { .n = PLACES, .name = name, .run = run },
                          .lock = PTHREAD_MUTEX_INITIALIZER,
                          .fail = fail };
}

static void clear(struct place_result r[PLACES])
{
    for (size_t i = 0; i < PLACES; i++)
        place_result_clear(&r[i]);
}

Test(provider, runs_each_place_once_and_never_more_than_asked_at_a_time)
{
    struct fake f = fake_new(0);
    struct place_result r[PLACES] = { { .step = NULL } };
    provider_run(&f.base, PLACE_UP, 3, r);
    for (size_t i = 0; i < PLACES; i++)
        cr_expect_eq(f.runs[i], 1, "place %zu", i);
    cr_expect(f.most <= 3 && f.most >= 2, "%u at once", f.most);
    clear(r);
}

Test(provider, rolls_in_batches_and_stops_after_too_many_failures)
{
    struct fake f = fake_new(1u << 1 | 1u << 5);
    struct place_result r[PLACES] = { { .step = NULL } };
    provider_roll(&f.base, PLACE_UPGRADE, 4, 1, r);
    cr_expect_leq(f.most, 4);
    for (size_t i = 0; i < PLACES; i++) {
        cr_expect_eq(f.runs[i], i < 8, "place %zu", i);
        cr_expect_eq(r[i].status == PLACE_SKIPPED, i >= 8, "place %zu", i);
    }
    clear(r);
}

Test(provider, the_document_counts_and_names)
{
    struct fake f = fake_new(1u << 2);
    struct place_result r[PLACES] = { { .step = NULL } };
    unsigned failed = 0;
    provider_run(&f.base, PLACE_UP, 64, r);
    CLEANUP(json_decrefp) json_t *doc = provider_document(&f.base, "up", r, &failed);
    cr_expect_eq(failed, 1);
    cr_expect_str_eq(json_string_value(json_object_get(doc, "schema")), "siofleet.deploy/1");
    cr_expect_eq(json_integer_value(json_object_get(doc, "changed")), PLACES - 1);
    cr_expect_eq(json_integer_value(json_object_get(doc, "bytes_sent")), 10 * PLACES);
    json_t *host = json_array_get(json_object_get(doc, "hosts"), 2);
    cr_expect_str_eq(json_string_value(json_object_get(host, "host")), "p2");
    cr_expect_str_eq(json_string_value(json_object_get(host, "code")), "REFUSED");
    cr_expect_str_eq(json_string_value(json_object_get(host, "fix")), "ask");
    host = json_array_get(json_object_get(doc, "hosts"), 3);
    cr_expect(json_is_null(json_object_get(host, "message")));
    cr_expect(json_is_null(json_object_get(host, "version")));
    clear(r);
}
