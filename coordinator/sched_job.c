/* Jobs: commands and collections. Their tasks go to agents that have what they need; each has one answer, of the attempt
 * that is current. A command runs once: what became of it on a host that was lost is not known, so it is not repeated. */
#include "coordinator/sched_in.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/num.h"

static const char *const kind_names[TASK_KINDS] = { "points", "trace", "exec", "collect" };

const char *task_kind_name(enum task_kind k)
{
    return k < TASK_KINDS ? kind_names[k] : "?";
}

enum task_kind task_kind_parse(const char *name)
{
    enum task_kind k = TASK_POINTS;
    while (k < TASK_KINDS && strcmp(name, kind_names[k]) != 0)
        k++;
    return k;
}

struct sched_job *sched_job(const struct sched *s, uint64_t seq)
{
    return map_get(&s->jobs, seq);
}

uint64_t sched_reserve(struct sched *s, uint64_t n)
{
    uint64_t first = s->cfg.next_task;
    s->cfg.next_task += n;
    return first;
}

void sched_free_job(struct sched_job *j)
{
    LIST_EACH(p, n, &j->tasks)
    sched_free_task(LIST_OF(p, struct sched_task, by_sweep));
    free(j);
}

/* Behind all of the same or a higher priority. */
void sched_order_job(struct sched *s, struct sched_job *j, uint64_t priority)
{
    list_del(&j->all);
    j->priority = priority;
    struct list *at = s->job_list.next;
    while (at != &s->job_list && LIST_OF(at, struct sched_job, all)->priority >= j->priority)
        at = at->next;
    list_add(at, &j->all);
}

/* A job whose last task is over is told of once and forgotten. */
static int settle(struct sched *s, struct sched_job *j, struct sched_actions *out)
{
    if (!list_empty(&j->tasks))
        return 0;
    struct sched_action *a;
    int r = sched_act(out, ACT_JOB_OVER, &a);
    if (r < 0)
        return r;
    a->sweep = j->seq;
    a->user = j->user;
    list_del(&j->all);
    map_del(&s->jobs, j->seq);
    sched_free_job(j);
    return 0;
}

int sched_ev_job(struct sched *s, const struct sched_event *ev, struct sched_actions *out,
                 struct err *e)
{
    if (sched_job(s, ev->job.seq))
        return err_set(e, EEXIST, "job %llu: is here already", (unsigned long long)ev->job.seq);
    struct sched_job *j = calloc(1, sizeof(*j));
    if (!j)
        return -ENOMEM;
    *j = (struct sched_job){ .seq = ev->job.seq,
                             .priority = ev->job.priority,
                             .timeout_ms = ev->job.timeout_ms,
                             .kind = ev->job.kind,
                             .retries = ev->job.retries,
                             .held = ev->job.held,
                             .soon_ms = UINT64_MAX,
                             .user = ev->job.user };
    list_init(&j->tasks);
    list_init(&j->all);
    int r = map_put(&s->jobs, j->seq, j);
    if (r < 0) {
        free(j);
        return r;
    }
    sched_order_job(s, j, j->priority);
    for (size_t i = 0; i < ev->job.n_tasks; i++) {
        const struct sched_job_task *x = &ev->job.tasks[i];
        struct sched_task *t;
        r = sched_bare_task(s, j->kind, x->num, &t);
        if (r < 0)
            return r;
        t->job = j;
        t->n = (uint32_t)x->n;
        t->fails = x->fails;
        t->retries = (uint16_t)j->retries;
        list_add(&j->tasks, &t->by_sweep);
        if (!x->needs.pinned) {
            j->needs = x->needs;
            t->needs = &j->needs;
            continue;
        }
        struct sched_needs *own = malloc(sizeof(*own));
        if (!own)
            return -ENOMEM;
        *own = x->needs;
        t->needs = own;
    }
    return settle(s, j, out);
}

/* ---- ends */

int sched_job_over(struct sched *s, struct sched_task *t, const char *text, bool cancelled,
                   struct sched_actions *out)
{
    struct sched_job *j = t->job;
    if (text) {
        struct sched_action *a;
        int r = sched_act(out, ACT_JOB_TASK, &a);
        if (r < 0)
            return r;
        a->sweep = j->seq;
        a->task = t->num;
        a->fails = cancelled ? UINT32_MAX : t->fails;
        snprintf(a->text, sizeof(a->text), "%s", text);
    }
    sched_end_task(s, t);
    return settle(s, j, out);
}

/* The attempt did not begin. */
static bool not_begun(const char *cause)
{
    return !strcmp(cause, "declined") || !strcmp(cause, "unsent") || !strcmp(cause, "store");
}

static bool is_loss(const char *cause)
{
    return !strcmp(cause, "lost") || !strcmp(cause, "cancelled");
}

bool sched_job_final(const struct sched_task *t, const char *cause)
{
    if (!strcmp(cause, "done") || t->state == TASK_STOPPING || t->cancelled || t->job->cancelled)
        return true;
    if (not_begun(cause))
        return false;
    if (t->kind == TASK_EXEC)
        return true;
    return !is_loss(cause) && t->fails >= t->retries;
}

void sched_job_soon(struct sched_task *t)
{
    if (t->job && t->not_before_ms < t->job->soon_ms)
        t->job->soon_ms = t->not_before_ms;
}

int sched_job_again(struct sched *s, struct sched_task *t, bool count, const char *text,
                    uint64_t now, struct sched_actions *out)
{
    char why[200];
    snprintf(why, sizeof(why), "%s", text);
    if (t->state == TASK_STOPPING || t->cancelled || t->job->cancelled)
        return sched_job_over(s, t, "cancelled", true, out);
    t->fails += count;
    if ((count && t->fails > t->retries) || (t->kind == TASK_EXEC && !not_begun(why)))
        return sched_job_over(s, t, why, false, out);
    sched_leave(t);
    sched_move(s, t, MOVE_REQUEUE);
    uint32_t tries = count ? t->fails : t->past ? t->past->n_kills : 0;
    t->not_before_ms = tries ? now + sched_back_off(&s->rng, tries) : now;
    sched_job_soon(t);
    return 0;
}

int sched_cancel_job_task(struct sched *s, struct sched_task *t, struct sched_actions *out)
{
    if (task_waits(t))
        return sched_job_over(s, t, "cancelled", true, out);
    t->cancelled = true;
    return sched_stop(s, t, out);
}

int sched_cancel_job(struct sched *s, struct sched_job *j, struct sched_actions *out)
{
    uint64_t seq = j->seq;
    j->cancelled = true;
    LIST_EACH(p, n, &j->tasks)
    {
        bool last = n == &j->tasks;
        int r = sched_cancel_job_task(s, LIST_OF(p, struct sched_task, by_sweep), out);
        if (r < 0)
            return r;
        if (last || !sched_job(s, seq))
            break; /* the job may be gone, and its list with it */
    }
    return 0;
}

/* ---- who may run it */

/* Length of the label at s, and where the next one begins. */
static const char *label(const char *s, size_t *ret_n)
{
    *ret_n = strcspn(s, ",");
    return s[*ret_n] ? s + *ret_n + 1 : s + *ret_n;
}

static bool has_one(const char *labels, const char *want, size_t n)
{
    while (labels && *labels) {
        size_t k;
        const char *next = label(labels, &k);
        if (k == n && !memcmp(labels, want, n))
            return true;
        labels = next;
    }
    return false;
}

bool labels_have(const char *labels, const char *wanted)
{
    while (wanted && *wanted) {
        size_t n;
        const char *next = label(wanted, &n);
        if (n && !has_one(labels, wanted, n))
            return false;
        wanted = next;
    }
    return true;
}

/* Cores of this agent that a task takes. */
static uint64_t cores_on(const struct sched_agent *a, const struct sched_needs *n)
{
    return n->fewer && n->cores > a->cores ? a->cores : n->cores;
}

enum { NO_CORES = 1, NO_MEMORY = 2, NO_KVM = 4, NO_QEMU = 8, NO_LABELS = 16, NOT_IT = 32 };

/* What of it the agent does not have. */
static unsigned lacks(const struct sched_agent *a, const struct sched_needs *n)
{
    return (a->cores < cores_on(a, n) ? NO_CORES : 0) |
           (a->memory_mib < n->memory_mib ? NO_MEMORY : 0) | (n->kvm && !a->kvm ? NO_KVM : 0) |
           (n->collect && a->collect == COLLECT_NO ? NO_QEMU : 0) |
           (!labels_have(a->labels, n->labels) ? NO_LABELS : 0) |
           (n->pinned && memcmp(a->install, n->install, sizeof(a->install)) != 0 ? NOT_IT : 0);
}

bool sched_agent_fits(const struct sched_agent *a, const struct sched_needs *n)
{
    return !lacks(a, n);
}

/* Cores and memory that tasks of jobs hold on an agent. */
static void held(const struct sched_agent *a, uint64_t *cores, uint64_t *memory_mib,
                 bool *exclusive)
{
    *cores = *memory_mib = 0;
    *exclusive = false;
    LIST_EACH(p, n, &a->tasks)
    {
        const struct sched_task *t = LIST_OF(p, struct sched_task, by_agent);
        *cores += cores_on(a, t->needs);
        *memory_mib += t->needs->memory_mib;
        *exclusive |= sched_alone(t);
    }
}

void sched_reserve_agents(struct sched *s)
{
    uint64_t cores, memory_mib;
    LIST_EACH(q, m, &s->agent_list)
    {
        struct sched_agent *a = LIST_OF(q, struct sched_agent, all);
        held(a, &cores, &memory_mib, &a->reserved);
    }
}

static bool has_room(const struct sched_agent *a, const struct sched_task *t)
{
    const struct sched_needs *n = t->needs;
    uint64_t cores, memory_mib;
    bool exclusive;
    if (a->n_tasks[t->kind] >= (t->kind == TASK_EXEC ? SCHED_EXEC_SLOTS : SCHED_COLLECT_SLOTS))
        return false;
    held(a, &cores, &memory_mib, &exclusive);
    return !exclusive && cores + cores_on(a, n) <= a->cores &&
           memory_mib + n->memory_mib <= a->memory_mib &&
           (!sched_alone(t) || list_empty(&a->tasks));
}

/* What t waits for there, or shares it with. */
static uint32_t beside(const struct sched_agent *a, const struct sched_task *t)
{
    uint32_t jobs = a->n_tasks[TASK_EXEC] + a->n_tasks[TASK_COLLECT];
    return sched_alone(t) ? jobs + a->n_tasks[TASK_POINTS] + a->n_tasks[TASK_TRACE] : jobs;
}

/* Whether a is a better place than b for t: prepared, less to do. */
static bool better(const struct sched_task *t, const struct sched_agent *a,
                   const struct sched_agent *b)
{
    if (!b)
        return true;
    if (t->needs->collect && a->collect != b->collect)
        return a->collect > b->collect;
    return (uint64_t)beside(a, t) * b->cores < (uint64_t)beside(b, t) * a->cores;
}

int sched_place(struct sched *s, struct sched_task *t, bool ready_only, uint64_t now,
                struct sched_actions *out)
{
    struct sched_agent *best = NULL, *wait_for = NULL;
    LIST_EACH(q, m, &s->agent_list)
    {
        struct sched_agent *a = LIST_OF(q, struct sched_agent, all);
        if (!sched_takes(a, now) || !sched_agent_fits(a, t->needs) ||
            (ready_only && a->collect != COLLECT_READY) || !sched_ends_before(a, t, now) ||
            sched_better_elsewhere(s, t, a, now))
            continue;
        if (has_room(a, t) && better(t, a, best))
            best = a;
        if (sched_alone(t) && better(t, a, wait_for))
            wait_for = a;
    }
    if (best) {
        int r = sched_grant(s, t, best, now, out);
        best->reserved |= r >= 0 && sched_alone(t);
        return r < 0 ? r : 1;
    }
    if (wait_for)
        wait_for->reserved = true; /* what it runs ends, nothing new begins */
    return 0;
}

/* An agent with QEMU in its cache is worth waiting for: building one takes minutes. */
static bool some_ready(const struct sched *s, const struct sched_task *t, uint64_t now)
{
    LIST_EACH(q, m, &s->agent_list)
    {
        const struct sched_agent *a = LIST_OF(q, struct sched_agent, all);
        if (a->alive && !a->drained && a->collect == COLLECT_READY &&
            sched_agent_fits(a, t->needs) && sched_ends_before(a, t, now))
            return true;
    }
    return false;
}

/* A task for one host, and that host is not there. */
static bool host_gone(const struct sched *s, const struct sched_task *t, uint64_t now)
{
    if (!t->needs->pinned || now <= s->start_ms + s->cfg.lease_ms)
        return false; /* after a start agents have a lease to come back */
    const struct sched_agent *a = sched_agent(s, t->needs->install);
    return !a || !a->alive;
}

/* A back-off ended: which one is next? */
static void find_soon(struct sched_job *j, uint64_t now)
{
    j->soon_ms = UINT64_MAX;
    LIST_EACH(p, n, &j->tasks)
    {
        struct sched_task *t = LIST_OF(p, struct sched_task, by_sweep);
        if (task_waits(t) && t->not_before_ms > now)
            sched_job_soon(t);
    }
}

int sched_grant_jobs(struct sched *s, uint64_t now, struct sched_actions *out)
{
    int r;
    LIST_EACH(i, next, &s->job_list)
    {
        struct sched_job *j = LIST_OF(i, struct sched_job, all);
        if (now >= j->soon_ms)
            find_soon(j, now);
        if (j->held)
            continue;
        LIST_EACH(p, n, &j->tasks)
        {
            struct sched_task *t = LIST_OF(p, struct sched_task, by_sweep);
            bool last = n == &j->tasks;
            if (t->state != TASK_QUEUED)
                continue;
            if (host_gone(s, t, now)) {
                if ((r = sched_job_over(s, t, "host is not there", false, out)) < 0)
                    return r;
                if (last)
                    break; /* the job may be gone, and its list with it */
                continue;
            }
            if (now < t->not_before_ms)
                continue;
            r = sched_place(s, t, t->needs->collect && some_ready(s, t, now), now, out);
            if (r < 0)
                return r;
            if (r == 0 && !t->needs->pinned && sched_alone(t) == t->needs->exclusive)
                break; /* its other tasks need the same; those of a suspect need less */
        }
    }
    return 0;
}

/* ---- why one waits */

static size_t wanted_labels(const char *labels, const char *wanted)
{
    size_t has = 0;
    while (wanted && *wanted) {
        size_t n;
        const char *next = label(wanted, &n);
        has += n && has_one(labels, wanted, n);
        wanted = next;
    }
    return has;
}

const struct sched_agent *sched_nearer(const struct sched_agent *near, const struct sched_agent *a,
                                       const struct sched_needs *n)
{
    unsigned x = lacks(a, n), y = near ? lacks(near, n) : 0;
    if (!near || (x & NOT_IT))
        return x & NOT_IT ? near : a;
    int d = __builtin_popcount(x) - __builtin_popcount(y);
    if (d)
        return d < 0 ? a : near;
    size_t i = wanted_labels(a->labels, n->labels), k = wanted_labels(near->labels, n->labels);
    if (i != k)
        return i > k ? a : near;
    if (a->cores != near->cores && ((x | y) & NO_CORES))
        return a->cores > near->cores ? a : near;
    return a->memory_mib > near->memory_mib && ((x | y) & NO_MEMORY) ? a : near;
}

__attribute__((format(printf, 2, 3))) static void add(char out[SCHED_WHY], const char *fmt, ...)
{
    va_list ap;
    size_t at = strlen(out);
    va_start(ap, fmt);
    vsnprintf(out + at, SCHED_WHY - at, fmt, ap);
    va_end(ap);
}

void sched_lacks_text(const struct sched_needs *n, const struct sched_agent *near,
                      sched_name_fn *name, char out[SCHED_WHY])
{
    *out = 0;
    const char *sep = "it asks for ";
    if (n->cores && !n->fewer)
        add(out, "%s%u cores", sep, n->cores), sep = ", ";
    if (n->memory_mib)
        add(out, "%s%llu MiB of memory", sep, (unsigned long long)n->memory_mib), sep = ", ";
    if (n->labels && *n->labels)
        add(out, "%sthe labels %.120s", sep, n->labels), sep = ", ";
    if (n->kvm)
        add(out, "%sa usable KVM", sep), sep = ", ";
    if (n->collect)
        add(out, "%sQEMU, or what builds it", sep);
    if (!near)
        return;
    unsigned l = lacks(near, n);
    add(out, "; agent '%.64s' comes nearest, with ", name(near));
    sep = "";
    if (l & NO_CORES)
        add(out, "%s%u cores", sep, near->cores), sep = ", ";
    if (l & NO_MEMORY)
        add(out, "%s%llu MiB of memory", sep, (unsigned long long)near->memory_mib), sep = ", ";
    if (l & NO_LABELS)
        add(out, "%s%s%.80s", sep, near->labels && *near->labels ? "the labels " : "no labels",
            near->labels ? near->labels : ""),
            sep = ", ";
    if (l & NO_KVM)
        add(out, "%sno usable KVM", sep), sep = ", ";
    if (l & NO_QEMU)
        add(out, "%sno QEMU", sep);
}

/* All who have it are busy: behind whom does it wait? */
static void why_busy(const struct sched *s, const struct sched_task *t, uint64_t now,
                     sched_name_fn *name, char out[SCHED_WHY])
{
    const struct sched_agent *least = NULL, *kept = NULL;
    LIST_EACH(q, m, &s->agent_list)
    {
        const struct sched_agent *a = LIST_OF(q, struct sched_agent, all);
        if (!a->alive || !a->accept || a->drained || !sched_agent_fits(a, t->needs) ||
            !sched_ends_before(a, t, now))
            continue;
        LIST_EACH(p, n, &a->tasks)
        if (sched_alone(LIST_OF(p, struct sched_task, by_agent)))
            kept = a;
        if (!least || beside(a, t) < beside(least, t))
            least = a;
    }
    if (least && sched_alone(t) && beside(least, t))
        add(out, "; it has its host to itself: agent '%.64s' ends %u tasks first", name(least),
            beside(least, t));
    else if (kept)
        add(out, "; agent '%.64s' runs a task that has its host to itself", name(kept));
}

/* So many have what it needs, and a maintenance before it would end. */
static void why_soon(const struct sched_task *t, size_t soon, char out[SCHED_WHY])
{
    char ms[NUM_MS_LEN];
    bool stated = t->needs->takes_ms || sched_timeout_ms(t);
    add(out,
        "%zu %s what it needs, and a maintenance that begins before it would end: it may take "
        "%s%s",
        soon, soon == 1 ? "agent has" : "agents have", num_ms_text(sched_takes_ms(t), ms),
        stated ? "" : ", as no limit of its time is stated");
}

void sched_soon_why(const struct sched *s, const struct sched_task *t, uint64_t now,
                    char out[SCHED_WHY])
{
    size_t soon = 0, others = 0;
    *out = 0;
    LIST_EACH(q, m, &s->agent_list)
    {
        const struct sched_agent *a = LIST_OF(q, struct sched_agent, all);
        if (a->alive && a->accept && !a->drained && sched_agent_fits(a, t->needs))
            *(sched_ends_before(a, t, now) ? &others : &soon) += 1;
    }
    if (soon && !others)
        why_soon(t, soon, out);
}

void sched_job_why(const struct sched *s, const struct sched_task *t, sched_name_fn *name,
                   uint64_t now, char out[SCHED_WHY])
{
    const struct sched_needs *n = t->needs;
    const struct sched_agent *near = NULL;
    size_t there = 0, fit = 0, shut = 0, soon = 0;
    *out = 0;
    if (t->state == TASK_QUARANTINED) {
        add(out, "three agents went while they held it; `siofleet retry %llu` lets it go on",
            (unsigned long long)t->num);
        return;
    }
    if (t->job->held) {
        add(out, "it is held; `siofleet release` lets it go on");
        return;
    }
    LIST_EACH(q, m, &s->agent_list)
    {
        const struct sched_agent *a = LIST_OF(q, struct sched_agent, all);
        if (!a->alive)
            continue;
        if (!a->accept || a->drained) {
            shut += sched_agent_fits(a, n);
            continue;
        }
        there++;
        if (sched_agent_fits(a, n))
            *(sched_ends_before(a, t, now) ? &fit : &soon) += 1;
        near = sched_nearer(near, a, n);
    }
    if (fit) {
        add(out, "%zu of %zu agents have what it needs, and are busy", fit, there);
        why_busy(s, t, now, name, out);
    }
    if (soon) {
        add(out, "%s", fit ? "; " : "");
        why_soon(t, soon, out);
    } else if (fit) {
        return;
    } else if (shut) {
        add(out,
            "only agents that are drained or closed have what it needs (%zu); `siofleet why "
            "AGENT` tells more",
            shut);
    } else if (!there) {
        add(out, "no agent takes work");
    } else {
        char text[SCHED_WHY];
        sched_lacks_text(n, near, name, text);
        add(out, "none of %zu agents has what it needs: %.400s", there, text);
    }
}
