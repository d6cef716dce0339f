#include "deploy/scale.h"

#include <errno.h>
#include <stdlib.h>

int scale_init(struct scale *s, const struct scale_conf *conf)
{
    *s = (struct scale){ .conf = *conf, .place = calloc(conf->max, sizeof(*s->place)) };
    return s->place ? 0 : -ENOMEM;
}

void scale_clear(struct scale *s)
{
    free(s->place);
    *s = (struct scale){ 0 };
}

uint64_t scale_wanted(const struct scale_conf *c, uint64_t points)
{
    uint64_t n = points / c->points + (points % c->points > 0);
    return n < c->min ? c->min : n > c->max ? c->max : n;
}

uint64_t scale_wait_ms(const struct scale *s, uint64_t now_ms)
{
    return s->retry_ms > now_ms ? s->retry_ms - now_ms : 0;
}

static void failed(struct scale *s, uint64_t now_ms)
{
    uint64_t wait = SCALE_BACK_MS;
    for (unsigned i = 0; i < s->fails && wait < SCALE_BACK_MAX_MS; i++)
        wait *= 2;
    s->fails++;
    s->retry_ms = now_ms + (wait < SCALE_BACK_MAX_MS ? wait : SCALE_BACK_MAX_MS);
}

static void go(struct scale_place *p, enum scale_state state, uint64_t now_ms)
{
    p->state = state;
    p->since_ms = now_ms;
}

struct step {
    struct scale *s;
    uint64_t now;
    struct scale_action *out;
    size_t n;
};

static void act(struct step *x, enum scale_act a, size_t i, const char *why)
{
    x->out[x->n++] =
        (struct scale_action){ .act = a, .place = i, .job = x->s->place[i].job, .why = why };
}

static void leave(struct step *x, size_t i, const char *why)
{
    struct scale_place *p = &x->s->place[i];
    act(x, p->state == SCALE_WAITING ? SCALE_CANCEL : SCALE_STOP, i, why);
    go(p, SCALE_LEAVING, x->now);
}

/* A job that is not there any more, or is over. */
static void over(struct step *x, size_t i)
{
    struct scale_place *p = &x->s->place[i];
    bool asked = p->state == SCALE_LEAVING || p->state == SCALE_DRAINING;
    bool lived = p->registered_ms && x->now - p->registered_ms >= SCALE_LIFE_MS;
    if (!asked && !lived)
        failed(x->s, x->now);
    act(x, asked || lived ? SCALE_OVER : SCALE_FAILED, i, NULL);
    *p = (struct scale_place){ .state = SCALE_EMPTY, .since_ms = x->now };
}

static void give_up(struct step *x, size_t i, const char *why)
{
    failed(x->s, x->now);
    act(x, SCALE_CANCEL, i, why);
    go(&x->s->place[i], SCALE_LEAVING, x->now);
}

/* What a place's job has come to. */
static void watch(struct step *x, size_t i, const struct scale_seen *v)
{
    struct scale_place *p = &x->s->place[i];
    const struct scale_conf *c = &x->s->conf;
    if (v->state == SEEN_NONE || v->state == SEEN_OVER) {
        if (p->state != SCALE_EMPTY)
            over(x, i);
        return;
    }
    if (p->state == SCALE_EMPTY) { /* of a call before this one */
        *p = (struct scale_place){ .job = v->job };
        go(p, SCALE_WAITING, x->now);
    }
    p->job = v->job;
    p->hopeless_ms = !v->hopeless ? 0 : p->hopeless_ms ? p->hopeless_ms : x->now;
    if (p->state == SCALE_WAITING && v->state == SEEN_RUNS)
        go(p, SCALE_YOUNG, x->now);
    if (v->registered && !p->registered_ms)
        p->registered_ms = x->now;
    if (p->state == SCALE_YOUNG && v->registered)
        go(p, SCALE_BUSY, x->now);
    if (p->registered_ms && x->now - p->registered_ms >= SCALE_LIFE_MS)
        x->s->fails = 0;
    p->lost_ms = v->registered || !p->registered_ms ? 0 : p->lost_ms ? p->lost_ms : x->now;
    p->idle_ms = v->running || !v->registered ? 0 : p->idle_ms ? p->idle_ms : x->now;
    uint64_t spent = x->now - p->since_ms;
    /* the end of its allocation: at the last moment the agent hands over what it has, finished or not */
    bool soon = v->state == SEEN_RUNS && v->left_ms <= c->drain_ms;
    bool last = soon && v->left_ms <= (c->drain_ms / 4 > 15000 ? c->drain_ms / 4 : 15000);
    switch (p->state) {
    case SCALE_WAITING:
        if (p->hopeless_ms && x->now - p->hopeless_ms >= c->held_ms)
            give_up(x, i, "will not start by waiting");
        break;
    case SCALE_YOUNG:
        if (spent >= c->start_ms)
            give_up(x, i, "its agent did not register");
        break;
    case SCALE_BUSY:
        if (p->lost_ms && x->now - p->lost_ms >= c->start_ms) {
            give_up(x, i, "the coordinator has lost its agent");
            break;
        }
        if (!soon && !v->drained)
            break;
        if (!v->drained)
            act(x, SCALE_DRAIN, i, "its allocation ends soon");
        go(p, SCALE_DRAINING, x->now);
        break;
    case SCALE_DRAINING:
        if (!v->running && v->drained)
            leave(x, i, soon ? "its allocation ends soon" : "it is drained");
        else if (last)
            leave(x, i, "its allocation ends now");
        else if (!v->drained && v->registered)
            act(x, SCALE_DRAIN, i, "its allocation ends soon");
        break;
    case SCALE_LEAVING:
        if (spent >= SCALE_LEAVE_MS) {
            act(x, SCALE_CANCEL, i, "it does not end");
            go(p, SCALE_LEAVING, x->now);
        }
        break;
    case SCALE_EMPTY:
        break;
    }
}

static size_t count(const struct scale *s, enum scale_state lo, enum scale_state hi)
{
    size_t n = 0;
    for (size_t i = 0; i < s->conf.max; i++)
        n += s->place[i].state >= lo && s->place[i].state <= hi;
    return n;
}

size_t scale_step(struct scale *s, const struct scale_seen seen[], uint64_t points, uint64_t now_ms,
                  struct scale_action out[])
{
    struct step x = { .s = s, .now = now_ms, .out = out };
    for (size_t i = 0; i < s->conf.max; i++)
        watch(&x, i, &seen[i]);
    if (points == UINT64_MAX)
        return x.n;
    uint64_t want = scale_wanted(&s->conf, points), have = count(s, SCALE_WAITING, SCALE_BUSY);
    /* too many: those that do not run yet first, the newest first; then those that have been idle */
    for (size_t i = s->conf.max; i-- > 0 && have > want;)
        if (s->place[i].state == SCALE_WAITING) {
            leave(&x, i, "it is not needed any more");
            have--;
        }
    for (size_t i = s->conf.max; i-- > 0 && have > want;) {
        const struct scale_place *p = &s->place[i];
        if (p->state == SCALE_BUSY && p->idle_ms && now_ms - p->idle_ms >= s->conf.idle_ms) {
            leave(&x, i, "it is idle");
            have--;
        }
    }
    /* too few; after a failure one alone shows whether it works again */
    bool trial = s->fails && count(s, SCALE_WAITING, SCALE_YOUNG);
    for (size_t i = 0; i < s->conf.max && have < want && now_ms >= s->retry_ms && !trial; i++)
        if (s->place[i].state == SCALE_EMPTY && seen[i].state != SEEN_WAITS &&
            seen[i].state != SEEN_RUNS) {
            act(&x, SCALE_SUBMIT, i, NULL);
            go(&s->place[i], SCALE_WAITING, now_ms);
            s->place[i].job = 0;
            have++;
            trial = s->fails;
        }
    return x.n;
}

void scale_submitted(struct scale *s, size_t place, uint64_t job, uint64_t now_ms)
{
    struct scale_place *p = &s->place[place];
    if (job) {
        p->job = job;
        return;
    }
    *p = (struct scale_place){ .state = SCALE_EMPTY, .since_ms = now_ms };
    failed(s, now_ms);
}
