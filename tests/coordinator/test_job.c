/* Jobs in the scheduler, on virtual time: commands and collections find the agents that they need. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "coordinator/sched.h"

enum { LEASE = 10000 };

static struct sched s;
static struct sched_actions out;
static uint64_t now;

static void start(void)
{
    now = 1000;
    sched_init(&s, &(struct sched_cfg){ .epoch = 1, .lease_ms = LEASE, .seed = 7 }, now);
}

static void stop(void)
{
    sched_clear(&s);
    sched_actions_clear(&out);
}

TestSuite(job, .init = start, .fini = stop);

static int step(const struct sched_event *ev)
{
    struct err e = { 0 };
    sched_actions_reset(&out);
    int r = sched_step(&s, ev, now, &out, &e);
    cr_assert_eq(sched_check(&s, &e), 0, "after event %d: %s", ev->type, e.text);
    return r;
}

static void tick(void)
{
    cr_assert_eq(step(&(struct sched_event){ .type = EV_TICK }), 0);
}

static const struct sched_action *did(enum sched_action_type t, unsigned nth)
{
    for (size_t i = 0; i < out.n; i++)
        if (out.v[i].type == t && nth-- == 0)
            return &out.v[i];
    return NULL;
}

static void install(uint8_t to[16], int no)
{
    memset(to, 0, 16);
    to[0] = (uint8_t)no;
}

static void hello(int no, uint32_t cores, uint64_t memory_mib, const char *labels, uint8_t collect)
{
    struct sched_event ev = { .type = EV_HELLO,
                              .agent = { .boot = 1,
                                         .cores = cores,
                                         .memory_mib = memory_mib,
                                         .labels = labels,
                                         .collect = collect,
                                         .accept = true } };
    install(ev.agent.install, no);
    cr_assert_eq(step(&ev), 0);
}

/* Every agent says what it holds; those in silent (a bit each) do not. */
static void beats(unsigned silent)
{
    LIST_EACH(q, m, &s.agent_list)
    {
        struct sched_agent *a = LIST_OF(q, struct sched_agent, all);
        struct sched_ref refs[64];
        size_t n = 0;
        if (silent >> a->install[0] & 1)
            continue;
        LIST_EACH(p, k, &a->tasks)
        {
            struct sched_task *t = LIST_OF(p, struct sched_task, by_agent);
            refs[n++] = (struct sched_ref){ t->num, t->epoch, t->n, 2 };
        }
        struct sched_event ev = {
            .type = EV_BEAT, .agent = { .boot = 1, .accept = true, .refs = refs, .n_refs = n }
        };
        memcpy(ev.agent.install, a->install, 16);
        cr_assert_eq(step(&ev), 0);
    }
}

static void submit(uint64_t seq, enum task_kind kind, const struct sched_job_task tasks[], size_t n)
{
    struct sched_event ev = { .type = EV_JOB,
                              .job = { .seq = seq,
                                       .kind = kind,
                                       .retries = kind == TASK_COLLECT,
                                       .tasks = tasks,
                                       .n_tasks = n } };
    cr_assert_eq(step(&ev), 0);
}

static void submit_one(uint64_t seq, enum task_kind kind, struct sched_needs needs)
{
    struct sched_job_task t = { .num = sched_reserve(&s, 1), .needs = needs };
    submit(seq, kind, &t, 1);
}

static void end(const struct sched_action *grant, const char *cause)
{
    struct sched_event ev = { .type = EV_END,
                              .end = { grant->task, grant->epoch, grant->n, cause, cause } };
    cr_assert_eq(step(&ev), 0);
}

static int agent_of(const struct sched_action *a)
{
    return a && a->agent ? a->agent->install[0] : -1;
}

Test(job, a_command_runs_on_its_host_and_nowhere_else)
{
    struct sched_needs n = { .pinned = true };
    hello(1, 4, 1000, "", COLLECT_NO);
    hello(2, 4, 1000, "", COLLECT_NO);
    install(n.install, 2);
    submit_one(1, TASK_EXEC, n);
    tick();
    cr_assert_eq(agent_of(did(ACT_GRANT, 0)), 2);
    cr_assert(!did(ACT_GRANT, 1));
    struct sched_action g = *did(ACT_GRANT, 0);
    end(&g, "done");
    cr_assert(did(ACT_JOB_OVER, 0));
    cr_assert(!did(ACT_JOB_TASK, 0), "its answer is stored with its end");
    cr_assert(!sched_job(&s, 1));
}

Test(job, a_command_is_not_repeated_when_its_host_is_lost)
{
    struct sched_needs n = { .pinned = true };
    hello(1, 4, 1000, "", COLLECT_NO);
    install(n.install, 1);
    submit_one(1, TASK_EXEC, n);
    tick();
    cr_assert_eq(agent_of(did(ACT_GRANT, 0)), 1);
    now += LEASE + 1;
    tick();
    cr_assert(did(ACT_JOB_TASK, 0));
    cr_assert_str_eq(did(ACT_JOB_TASK, 0)->text, "lost");
    cr_assert(did(ACT_JOB_OVER, 0));
}

Test(job, a_command_that_was_declined_is_granted_again)
{
    struct sched_needs n = { .pinned = true };
    hello(1, 4, 1000, "", COLLECT_NO);
    install(n.install, 1);
    submit_one(1, TASK_EXEC, n);
    tick();
    const struct sched_action *g = did(ACT_GRANT, 0);
    struct sched_event ev = { .type = EV_DECLINE,
                              .end = { g->task, g->epoch, g->n, "declined", NULL } };
    cr_assert_eq(step(&ev), 0);
    now += SCHED_DECLINE_MS;
    beats(0);
    tick();
    cr_assert_eq(did(ACT_GRANT, 0)->n, 2);
}

Test(job, an_agent_gets_no_more_commands_than_it_takes_and_the_others_when_some_end)
{
    struct sched_needs n = { .pinned = true };
    hello(1, 4, 1000, "", COLLECT_NO);
    install(n.install, 1);
    for (uint64_t i = 1; i <= SCHED_EXEC_SLOTS + 3; i++)
        submit_one(i, TASK_EXEC, n);
    tick();
    cr_assert(did(ACT_GRANT, SCHED_EXEC_SLOTS - 1));
    cr_assert(!did(ACT_GRANT, SCHED_EXEC_SLOTS));
    struct sched_action g = *did(ACT_GRANT, 0);
    end(&g, "done");
    tick();
    cr_assert(did(ACT_GRANT, 0) && !did(ACT_GRANT, 1));
}

Test(job, a_command_for_a_host_that_went_meanwhile_fails_instead_of_waiting)
{
    struct sched_needs n = { .pinned = true };
    hello(1, 4, 1000, "", COLLECT_NO);
    now += LEASE + 1;
    tick();
    install(n.install, 1);
    submit_one(1, TASK_EXEC, n);
    tick();
    cr_assert(did(ACT_JOB_TASK, 0));
    cr_assert(!did(ACT_GRANT, 0));
}

Test(job, runs_go_where_cores_memory_and_labels_suffice)
{
    struct sched_job_task t[4] = { 0 };
    for (int i = 0; i < 4; i++)
        t[i] = (struct sched_job_task){
            .num = sched_reserve(&s, 1),
            .needs = { .cores = 2, .memory_mib = 600, .collect = true, .labels = "rack=b" }
        };
    hello(1, 1, 9000, "rack=b", COLLECT_CAN);          /* too few cores */
    hello(2, 8, 500, "rack=b", COLLECT_CAN);           /* too little memory */
    hello(3, 8, 9000, "rack=a,x=b", COLLECT_CAN);      /* another rack */
    hello(4, 8, 9000, "rack=b", COLLECT_NO);           /* no QEMU */
    hello(5, 4, 1800, "disk=ssd,rack=b", COLLECT_CAN); /* two at a time */
    submit(1, TASK_COLLECT, t, 4);
    tick();
    cr_assert_eq(agent_of(did(ACT_GRANT, 0)), 5);
    cr_assert_eq(agent_of(did(ACT_GRANT, 1)), 5);
    cr_assert(!did(ACT_GRANT, 2));
    struct sched_action g = *did(ACT_GRANT, 0);
    end(&g, "done");
    tick();
    cr_assert_eq(agent_of(did(ACT_GRANT, 0)), 5);
    cr_assert(!did(ACT_GRANT, 1));
}

static const char *called(const struct sched_agent *a)
{
    static char name[12];
    snprintf(name, sizeof(name), "%d", a->install[0]);
    return name;
}

Test(job, the_nearest_agent_lacks_least_of_what_is_asked_for)
{
    struct sched_needs n = {
        .cores = 8, .memory_mib = 600, .kvm = true, .labels = "rack=b,disk=ssd"
    };
    static const struct {
        uint32_t cores;
        uint64_t memory_mib;
        const char *labels, *has;
    } rows[] = { /* each one nearer than those before it */
                 { 1, 500, "", "1 cores, 500 MiB of memory, no labels, no usable KVM" },
                 { 2, 900, "", "2 cores, no labels, no usable KVM" },
                 { 4, 900, "", "4 cores, no labels, no usable KVM" },
                 { 1, 900, "rack=b", "1 cores, the labels rack=b, no usable KVM" },
                 { 4, 900, "rack=b,disk=ssd", "4 cores, no usable KVM" },
                 { 8, 900, "rack=b,disk=ssd", "no usable KVM" }
    };
    struct sched_agent a[6] = { 0 };
    const struct sched_agent *near = NULL;
    char text[SCHED_WHY], want[SCHED_WHY];
    sched_lacks_text(&n, NULL, called, text);
    cr_assert_str_eq(text, "it asks for 8 cores, 600 MiB of memory, the labels rack=b,disk=ssd, a "
                           "usable KVM");
    for (int i = 0; i < 6; i++) {
        a[i].install[0] = (uint8_t)i;
        a[i].cores = rows[i].cores;
        a[i].memory_mib = rows[i].memory_mib;
        a[i].labels = (char *)(uintptr_t)rows[i].labels;
        near = sched_nearer(near, &a[i], &n);
        cr_assert_eq(near, &a[i], "row %d", i);
        cr_assert_eq(sched_nearer(near, &a[0], &n), near, "row %d", i);
        sched_lacks_text(&n, near, called, text);
        snprintf(want, sizeof(want), "; agent '%d' comes nearest, with %s", i, rows[i].has);
        cr_assert(strstr(text, want), "%s", text);
    }
    n.pinned = true; /* to another one */
    n.install[0] = 77;
    cr_assert_eq(sched_nearer(NULL, &a[0], &n), NULL);
}

Test(job, a_reason_names_what_no_agent_has)
{
    char why[SCHED_WHY];
    submit_one(1, TASK_COLLECT, (struct sched_needs){ .memory_mib = 64000 });
    const struct sched_job *j = LIST_OF(s.job_list.next, struct sched_job, all);
    const struct sched_task *t = LIST_OF(j->tasks.next, struct sched_task, by_sweep);
    sched_job_why(&s, t, called, now, why);
    cr_assert_str_eq(why, "no agent takes work");
    hello(1, 4, 1000, "", COLLECT_CAN);
    sched_job_why(&s, t, called, now, why);
    cr_assert_str_eq(why,
                     "none of 1 agents has what it needs: it asks for 64000 MiB of memory; agent "
                     "'1' comes nearest, with 1000 MiB of memory");
    hello(2, 4, 99000, "", COLLECT_CAN);
    sched_job_why(&s, t, called, now, why);
    cr_assert_str_eq(why, "1 of 2 agents have what it needs, and are busy");
    struct sched_event ev = { .type = EV_DRAIN };
    install(ev.agent.install, 2);
    step(&ev);
    sched_job_why(&s, t, called, now, why);
    cr_assert(strstr(why, "only agents that are drained or closed have what it needs (1)") == why);
}

static void plan_drain(int no, uint64_t at)
{
    struct sched_event ev = { .type = EV_DRAIN, .agent = { .accept = true, .drain_at_ms = at } };
    install(ev.agent.install, no);
    cr_assert_eq(step(&ev), 0);
}

Test(job, what_would_reach_into_a_planned_maintenance_waits_for_another_host_or_its_end)
{
    char why[SCHED_WHY];
    const struct {
        const char *what;
        enum task_kind kind;
        uint64_t takes_ms, timeout_ms, at_ms; /* stated, limit, begin of the maintenance */
        bool granted;
    } rows[] = {
        { "a command whose limit ends before", TASK_EXEC, 0, 5000, 5000, true },
        { "one whose limit reaches into it", TASK_EXEC, 0, 5001, 5000, false },
        { "one without a limit, in good time", TASK_EXEC, 0, 0, SCHED_UNSTATED_MS, true },
        { "one without a limit, shortly before", TASK_EXEC, 0, 0, SCHED_UNSTATED_MS - 1, false },
        { "a collection of stated length", TASK_COLLECT, 7000, 0, 7000, true },
        { "a collection of too much of it", TASK_COLLECT, 7001, 0, 7000, false },
        { "the stated length counts, not the limit", TASK_COLLECT, 7000, 9000, 8000, true },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        stop();
        start();
        hello(1, 4, 1000, "", COLLECT_READY);
        plan_drain(1, now + rows[i].at_ms);
        struct sched_job_task x = { .num = sched_reserve(&s, 1),
                                    .needs = { .takes_ms = rows[i].takes_ms,
                                               .pinned = rows[i].kind == TASK_EXEC } };
        install(x.needs.install, 1);
        cr_assert_eq(step(&(struct sched_event){ .type = EV_JOB,
                                                 .job = { .seq = 1,
                                                          .kind = rows[i].kind,
                                                          .timeout_ms = rows[i].timeout_ms,
                                                          .tasks = &x,
                                                          .n_tasks = 1 } }),
                     0);
        tick();
        cr_assert_eq(did(ACT_GRANT, 0) != NULL, rows[i].granted, "%s", rows[i].what);
        if (rows[i].granted)
            continue;
        sched_job_why(&s, sched_task(&s, x.num), called, now, why);
        cr_assert(strstr(why, "a maintenance that begins before it would end: it may take "),
                  "%s: %s", rows[i].what, why);
        now += 1000;
        beats(0);
        tick();
        cr_assert(!did(ACT_GRANT, 0), "%s: later it fits even less", rows[i].what);
        if (rows[i].kind == TASK_COLLECT) { /* elsewhere, though nothing is prepared there */
            hello(2, 4, 1000, "", COLLECT_CAN);
            tick();
            cr_assert_eq(agent_of(did(ACT_GRANT, 0)), 2, "%s", rows[i].what);
            continue;
        }
        plan_drain(1, 0); /* over, or called off */
        tick();
        cr_assert(did(ACT_GRANT, 0), "%s: behind the maintenance", rows[i].what);
    }
}

Test(job, an_exclusive_task_keeps_no_host_free_whose_maintenance_comes_first)
{
    hello(1, 4, 1000, "", COLLECT_NO);
    submit_one(1, TASK_EXEC, (struct sched_needs){ .cores = 1 });
    tick();
    cr_assert_eq(agent_of(did(ACT_GRANT, 0)), 1);
    plan_drain(1, now + 5000);
    submit_one(2, TASK_COLLECT, (struct sched_needs){ .exclusive = true, .takes_ms = 6000 });
    submit_one(3, TASK_COLLECT, (struct sched_needs){ .cores = 1, .takes_ms = 1000 });
    tick();
    const struct sched_action *g = did(ACT_GRANT, 0);
    cr_assert_eq(agent_of(g), 1, "the short one is not kept out for nothing");
    cr_assert_eq(g->sweep, 3);
}

Test(job, agents_that_are_prepared_come_first)
{
    hello(1, 4, 1000, "", COLLECT_CAN);
    hello(2, 4, 1000, "", COLLECT_READY);
    for (uint64_t i = 1; i <= 3; i++)
        submit_one(i, TASK_COLLECT, (struct sched_needs){ .cores = 2, .collect = true });
    tick();
    cr_assert_eq(agent_of(did(ACT_GRANT, 0)), 2);
    cr_assert_eq(agent_of(did(ACT_GRANT, 1)), 2);
    cr_assert(!did(ACT_GRANT, 2), "building QEMU takes longer than waiting");
}

Test(job, a_run_of_a_lost_agent_is_made_elsewhere)
{
    hello(1, 2, 1000, "", COLLECT_CAN);
    submit_one(1, TASK_COLLECT, (struct sched_needs){ .cores = 2, .collect = true });
    tick();
    cr_assert_eq(agent_of(did(ACT_GRANT, 0)), 1);
    hello(2, 2, 1000, "", COLLECT_CAN);
    now += LEASE + 1;
    beats(1u << 1);
    tick();
    now += 2 * SCHED_BACKOFF_MS;
    tick();
    cr_assert_eq(agent_of(did(ACT_GRANT, 0)), 2);
    cr_assert_eq(did(ACT_GRANT, 0)->n, 2);
}

/* Each of three agents that get the only task of job 1 goes. */
static struct sched_task *lose_three(void)
{
    submit_one(1, TASK_COLLECT, (struct sched_needs){ .cores = 2, .collect = true });
    for (int i = 1; i <= 3; i++) {
        hello(i, 2, 1000, "", COLLECT_CAN);
        now += 8 * SCHED_BACKOFF_MS;
        beats(~(1u << i));
        tick();
        cr_assert(did(ACT_GRANT, 0));
        cr_assert_eq(agent_of(did(ACT_GRANT, 0)), i);
        now += LEASE + 1;
        beats(~0u);
        tick();
        cr_assert(did(ACT_NOTE, 0), "it is kept over a restart");
        cr_assert_eq(did(ACT_NOTE, 0)->n_kills, (uint32_t)i);
        cr_assert_eq(did(ACT_NOTE, 0)->kind, TASK_COLLECT);
    }
    cr_assert(did(ACT_NOTE, 0)->quarantined && did(ACT_NOTE, 0)->news);
    return sched_task(&s, 1);
}

Test(job, a_run_that_three_agents_went_with_waits_for_a_person)
{
    const struct sched_task *t = lose_three();
    cr_assert_eq(t->state, TASK_QUARANTINED);
    hello(4, 2, 1000, "", COLLECT_CAN);
    tick();
    cr_assert(!did(ACT_GRANT, 0), "the fourth is spared");
    cr_assert_eq(step(&(struct sched_event){ .type = EV_RETRY_TASK, .end = { .task = 1 } }), 0);
    tick();
    cr_assert_eq(agent_of(did(ACT_GRANT, 0)), 4);
}

Test(job, a_run_in_quarantine_can_be_cancelled)
{
    lose_three();
    cr_assert_eq(step(&(struct sched_event){ .type = EV_CANCEL_JOB, .job = { .seq = 1 } }), 0);
    cr_assert(did(ACT_JOB_TASK, 0) && did(ACT_JOB_OVER, 0));
    tick();
    cr_assert(did(ACT_FORGET, 0));
}

Test(job, quarantine_of_a_run_outlives_a_restart)
{
    struct sched_kill kills[SCHED_KILLS] = { { { 1 }, 1 }, { { 2 }, 1 }, { { 3 }, 1 } };
    struct spans none = { 0 };
    submit_one(1, TASK_COLLECT, (struct sched_needs){ .cores = 2, .collect = true });
    cr_assert_eq(step(&(struct sched_event){ .type = EV_RESTORE,
                                             .restore = { .task = 1,
                                                          .n = 3,
                                                          .kind = TASK_COLLECT,
                                                          .points = &none,
                                                          .kills = kills,
                                                          .n_kills = 3,
                                                          .quarantined = true,
                                                          .noted = true } }),
                 0);
    hello(9, 2, 1000, "", COLLECT_CAN);
    tick();
    cr_assert(!did(ACT_GRANT, 0));
    cr_assert_eq(sched_task(&s, 1)->state, TASK_QUARANTINED);
}

Test(job, a_run_that_fails_is_tried_once_more_on_another_agent)
{
    hello(1, 2, 1000, "", COLLECT_CAN);
    hello(2, 2, 1000, "", COLLECT_CAN);
    submit_one(1, TASK_COLLECT, (struct sched_needs){ .cores = 2, .collect = true });
    tick();
    struct sched_action g = *did(ACT_GRANT, 0);
    int first = agent_of(&g);
    cr_assert(!sched_job_final(sched_task(&s, g.task), "exit"));
    end(&g, "exit");
    now += 2 * SCHED_BACKOFF_MS;
    beats(0);
    tick();
    cr_assert(did(ACT_GRANT, 0));
    cr_assert_neq(agent_of(did(ACT_GRANT, 0)), first);
    g = *did(ACT_GRANT, 0);
    cr_assert(sched_job_final(sched_task(&s, g.task), "exit"));
    end(&g, "exit");
    cr_assert(did(ACT_JOB_OVER, 0));
}

Test(job, an_exclusive_task_waits_for_its_host_and_has_it_alone)
{
    struct sched_needs n = { .pinned = true };
    hello(1, 4, 1000, "", COLLECT_NO);
    install(n.install, 1);
    submit_one(1, TASK_EXEC, n);
    tick();
    struct sched_action plain = *did(ACT_GRANT, 0);
    n.exclusive = true;
    submit_one(2, TASK_EXEC, n);
    n.exclusive = false;
    submit_one(3, TASK_EXEC, n);
    tick();
    cr_assert(!did(ACT_GRANT, 0), "the host is busy, and reserved");
    end(&plain, "done");
    tick();
    cr_assert_eq(did(ACT_GRANT, 0)->sweep, 2);
    cr_assert(!did(ACT_GRANT, 1), "not beside an exclusive one");
    struct sched_action alone = *did(ACT_GRANT, 0);
    end(&alone, "done");
    tick();
    cr_assert_eq(did(ACT_GRANT, 0)->sweep, 3);
}

Test(job, cancel_ends_what_waits_and_what_runs)
{
    struct sched_job_task t[2] = { { .num = sched_reserve(&s, 1) },
                                   { .num = sched_reserve(&s, 1) } };
    t[0].needs = t[1].needs = (struct sched_needs){ .cores = 2, .collect = true };
    hello(1, 2, 1000, "", COLLECT_CAN);
    submit(1, TASK_COLLECT, t, 2);
    tick();
    struct sched_action g = *did(ACT_GRANT, 0);
    cr_assert_eq(step(&(struct sched_event){ .type = EV_CANCEL_JOB, .job = { .seq = 1 } }), 0);
    cr_assert(did(ACT_CANCEL, 0));
    cr_assert_eq(did(ACT_JOB_TASK, 0)->fails, UINT32_MAX);
    cr_assert(!did(ACT_JOB_OVER, 0));
    end(&g, "cancelled");
    cr_assert(did(ACT_JOB_OVER, 0));
}

Test(job, after_a_restart_agents_claim_what_they_run)
{
    struct sched_job_task t = { .num = 5, .n = 1, .needs = { .pinned = true } };
    install(t.needs.install, 1);
    s.cfg.epoch = 2;
    submit(1, TASK_EXEC, &t, 1);
    struct sched_event ev = {
        .type = EV_RESTORE,
        .restore = { .task = 5, .epoch = 1, .n = 1, .kind = TASK_EXEC, .open = true }
    };
    install(ev.restore.install, 1);
    cr_assert_eq(step(&ev), 0);
    tick();
    cr_assert(!did(ACT_GRANT, 0));
    struct sched_ref ref = { 5, 1, 1, 2 };
    struct sched_event hi = {
        .type = EV_HELLO,
        .agent = { .boot = 1, .cores = 1, .accept = true, .refs = &ref, .n_refs = 1 }
    };
    install(hi.agent.install, 1);
    cr_assert_eq(step(&hi), 0);
    cr_assert_eq(did(ACT_WELCOME, 0)->count, 0, "it may go on");
    now += LEASE;
    beats(0);
    tick();
    cr_assert(!did(ACT_JOB_TASK, 0));
    struct sched_action g = { .task = 5, .epoch = 1, .n = 1 };
    end(&g, "done");
    cr_assert(did(ACT_JOB_OVER, 0));
}

Test(job, labels_are_whole_words)
{
    cr_assert(labels_have("a=1,b=2", "b=2,a=1"));
    cr_assert(labels_have("a=1", NULL));
    cr_assert(labels_have("", ""));
    cr_assert(!labels_have("a=12", "a=1"));
    cr_assert(!labels_have("a=1", "a=12"));
    cr_assert(!labels_have("xa=1", "a=1"));
    cr_assert(!labels_have(NULL, "a=1"));
}
