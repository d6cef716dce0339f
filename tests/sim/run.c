/* One plan from beginning to end. */
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/agent.h"
#include "coordinator/serve.h"
#include "proto/base/clean.h"
#include "proto/base/file.h"
#include "proto/base/log.h"
#include "proto/base/space.h"
#include "proto/link/keys.h"
#include "tests/sim/mutants.h"
#include "tests/sim/sim.h"
#include "tests/sim/vfs.h"
#include "tests/sim/wrap.h"

enum { AGAIN_MS = 2000, GRACE_MS = 100000, PERSON_MS = 30000 };

/* ---- the fleet's randomness: libsodium's, so that keys made by libzmq are the same in each run as well */

static const char *r_name(void)
{
    return "sim";
}

static uint32_t r_u32(void)
{
    return (uint32_t)rng_u64(&world.rng);
}

static void r_buf(void *const p, const size_t n)
{
    for (size_t i = 0; i < n; i++)
        ((uint8_t *)p)[i] = (uint8_t)rng_u64(&world.rng);
}

static struct randombytes_implementation randomness = { .implementation_name = r_name,
                                                        .random = r_u32,
                                                        .buf = r_buf };

/* ---- main functions */

static void coordinator_main(struct part *p)
{
    static const char *const listen[] = { "tcp://sim:1" };
    const struct coordinator_conf conf = { .data = "/sim/c/data",
                                           .listen = listen,
                                           .n_listen = 1,
                                           .bulk = world.plan->bulk ? "tcp://sim:9" : NULL,
                                           .lease_ms = world.plan->lease_ms,
                                           .heartbeat_ms = world.plan->heartbeat_ms,
                                           .high_water_b = SPACE_AUTO,
                                           .low_water_b = SPACE_AUTO };
    struct err e = { 0 };
    p->exit = coordinator_run(&conf, &e);
    check_part_over(p);
    if (!p->dead && p->exit < 0)
        log_warn("coordinator ends: %s", e.text);
}

static void agent_main(struct part *p)
{
    const char *host = world.host[p->host].name;
    char data[32], server_key[32], key[32];
    snprintf(data, sizeof(data), "/sim/%s/data", host);
    snprintf(server_key, sizeof(server_key), "/sim/%s/coordinator.pub", host);
    snprintf(key, sizeof(key), "/sim/%s/key", host);
    const struct agent_conf conf = { .data = data,
                                     .connect = "tcp://sim:1",
                                     .server_key = server_key,
                                     .key = key,
                                     .cores = world.plan->cores,
                                     .labels = "",
                                     .cache_max_b = world.plan->cache_b,
                                     .bulk = world.plan->bulk,
                                     .high_water_b = SPACE_AUTO,
                                     .low_water_b = SPACE_AUTO };
    struct err e = { 0 };
    p->exit = agent_run(&conf, &e);
    check_part_over(p);
    if (!p->dead && p->exit < 0)
        log_warn("agent ends: %s", e.text);
    if (!p->dead && p->exit == -SF_EREFUSED)
        sim_fail("agent %s gives up: %s", host, e.text);
}

static void start_event(void *arg, uint64_t host)
{
    (void)arg;
    host_start((unsigned)host);
}

/* What ended by itself is started again, as a service manager would. */
static void watch_event(void *arg, uint64_t n)
{
    (void)n;
    struct part *p = arg;
    if (p->fiber)
        at_ms(world.now_ms + AGAIN_MS, watch_event, p, 0);
    else if (!world.host[p->host].main && !world.host[p->host].down)
        host_start(p->host);
}

void host_start(unsigned host)
{
    struct host *h = &world.host[host];
    if (h->main || host == USER_HOST)
        return;
    bool c = host == COORDINATOR_HOST;
    h->main = part_start(c ? PART_COORDINATOR : PART_AGENT, host, h->name,
                         c ? coordinator_main : agent_main, NULL);
    at_ms(world.now_ms + AGAIN_MS, watch_event, h->main, 0);
}

/* ---- disks to begin with: keys, program files, and an empty store, made once */

static struct disk *first[HOSTS_MAX], *first_store;

static void put_file(const char *path, const char *text)
{
    struct err e = { 0 };
    if (file_write(path, text, strlen(text), 0600, true, &e) < 0) {
        fprintf(stderr, "sim: %s\n", e.text);
        abort();
    }
}

static void forget_first(void)
{
    for (unsigned i = 0; i < HOSTS_MAX; i++)
        disk_free(&first[i]);
    disk_free(&first_store);
}

static void make_first(void)
{
    static const struct plan none = { .random = 77,
                                      .agents = HOSTS_MAX - FIRST_AGENT_HOST,
                                      .lease_ms = 10000,
                                      .heartbeat_ms = 2000,
                                      .grain_ms = 200 };
    struct err e = { 0 };
    struct key_pair key;
    char path[64], pub[256];
    world_init(&none);
    int r = dir_make("/sim/c/data/keys", 0700, &e);
    if (r >= 0)
        r = key_new("/sim/c/data/keys/coordinator", ROLE_COORDINATOR, "coordinator", &key, &e);
    if (r >= 0)
        snprintf(pub, sizeof(pub), "siofleet-key 1 coordinator coordinator %s\n", key.pub.z85);
    for (unsigned h = 0; h < world.n_hosts && r >= 0; h++) {
        snprintf(path, sizeof(path), "/sim/%s/bin", world.host[h].name);
        dir_make(path, 0700, &e);
        snprintf(path, sizeof(path), "/sim/%s/bin/siofleet", world.host[h].name);
        put_file(path, "the program\n");
        snprintf(path, sizeof(path), "/sim/%s/bin/siofleet-shim", world.host[h].name);
        put_file(path, "the shim\n");
        if (h == COORDINATOR_HOST)
            continue;
        snprintf(path, sizeof(path), "/sim/%s/coordinator.pub", world.host[h].name);
        put_file(path, pub);
        snprintf(path, sizeof(path), "/sim/%s/key", world.host[h].name);
        r = key_new(path, h == USER_HOST ? ROLE_USER : ROLE_AGENT, world.host[h].name, &key, &e);
    }
    if (r < 0) {
        fprintf(stderr, "sim: %s\n", e.text);
        abort();
    }
    for (unsigned h = 0; h < world.n_hosts; h++)
        first[h] = disk_copy(world.host[h].disk, h);
    check_begin();
    host_start(COORDINATOR_HOST);
    world_run(1000);
    world.host[COORDINATOR_HOST].down = true;
    part_sigterm(world.host[COORDINATOR_HOST].main);
    world_run(5000);
    first_store = disk_copy(world.host[COORDINATOR_HOST].disk, COORDINATOR_HOST);
    world_clear();
    atexit(forget_first);
}

/* ---- events of a plan */

/* A stored artefact is not any more what it was. */
static void rot(unsigned host, uint64_t salt)
{
    char folder[32], name[128];
    snprintf(folder, sizeof(folder), "%s/data/%s", world.host[host].name,
             host == COORDINATOR_HOST ? "cas" : "cache");
    check_rots(host);
    disk_rot(world.host[host].disk, folder + strcspn(folder, "/") + 1, salt, name);
    if (*name)
        check_rotten(host, name);
}

/* Somebody has copied an agent's folder of keys to another machine: a second install under one key. It knows an agent's own
 * place, so it may only come when the coordinator knows that. */
static void twin_main(struct part *p)
{
    const struct agent_conf conf = { .data = "/sim/u/twin/data",
                                     .connect = "tcp://sim:1",
                                     .server_key = "/sim/u/coordinator.pub",
                                     .key = "/sim/u/twin/key",
                                     .cores = world.plan->cores,
                                     .labels = "" };
    struct err e = { 0 };
    (void)agent_run(&conf, &e);
    if (!p->dead)
        log_info("twin ends: %s", e.text);
}

static void kill_event(void *arg, uint64_t n)
{
    (void)n;
    struct part *p = arg;
    if (p->fiber && !p->dead)
        part_kill(p);
}

static void twin(unsigned host, uint64_t ms)
{
    CLEANUP(buf_clear) struct buf key = BUF_INIT(4096);
    char path[64];
    if (!check_welcomed(host))
        return;
    snprintf(path, sizeof(path), "/sim/%s/key", world.host[host].name);
    if (file_read(path, &key, NULL) < 0 || dir_make("/sim/u/twin", 0700, NULL) < 0 ||
        file_write("/sim/u/twin/key", key.data, key.len, 0600, true, NULL) < 0)
        return;
    struct part *p = part_start(PART_AGENT, USER_HOST, "twin", twin_main, NULL);
    at_ms(world.now_ms + ms, kill_event, p, 0);
}

static void apply(void *arg, uint64_t n)
{
    (void)arg;
    const struct plan_event *ev = &world.plan->ev[n];
    const int64_t *a = ev->arg;
    struct host *h = &world.host[a[0] < HOSTS_MAX ? a[0] : 0];
    uint64_t until = world.now_ms + (uint64_t)a[1];
    switch (ev->verb) {
    case PLAN_submit:
    case PLAN_cancel:
    case PLAN_hold:
    case PLAN_retry:
    case PLAN_free:
    case PLAN_collect:
    case PLAN_drain:
    case PLAN_exec:
    case PLAN_canceljob:
        user_command(ev);
        break;
    case PLAN_kill:
        if (h->main)
            part_kill_for(h->main, (uint64_t)a[1]);
        break;
    case PLAN_power:
        host_power((unsigned)a[0], (uint64_t)a[2], (uint64_t)a[1]);
        break;
    case PLAN_stop:
        if (h->main)
            part_sigterm(h->main);
        break;
    case PLAN_freeze:
        check_reason((unsigned)a[0], until);
        if (h->main)
            h->main->frozen_until_ms = until;
        break;
    case PLAN_slow:
        check_reason((unsigned)a[0], until);
        h->slow_until_ms = until;
        h->slow_ms = (uint64_t)a[2];
        break;
    case PLAN_clock:
        h->wall_off_ms += a[1];
        break;
    case PLAN_cut:
        net_cut((unsigned)a[0], (unsigned)a[1], world.now_ms + (uint64_t)a[2]);
        break;
    case PLAN_loss:
        net_fault(NET_LOSS, (unsigned)a[0], (unsigned)a[1], (uint64_t)a[2], 0);
        break;
    case PLAN_dup:
        net_fault(NET_DUP, (unsigned)a[0], (unsigned)a[1], (uint64_t)a[2], (uint64_t)a[3]);
        break;
    case PLAN_delay:
        net_fault(NET_DELAY, (unsigned)a[0], (unsigned)a[1], (uint64_t)a[2], (uint64_t)a[3]);
        break;
    case PLAN_reset:
        net_reset((unsigned)a[0]);
        break;
    case PLAN_enospc:
        disk_fault(h->disk, DISK_ENOSPC, (uint64_t)a[1], (uint64_t)a[2]);
        break;
    case PLAN_eio:
        disk_fault(h->disk, DISK_EIO, (uint64_t)a[1], (uint64_t)a[2]);
        break;
    case PLAN_torn:
        disk_fault(h->disk, DISK_TORN, (uint64_t)a[1], (uint64_t)a[2]);
        break;
    case PLAN_nosync:
        disk_fault(h->disk, DISK_SYNC, (uint64_t)a[1], (uint64_t)a[2]);
        break;
    case PLAN_killop:
    case PLAN_powerop:
        disk_kill_at(h->disk, ev->verb == PLAN_powerop, (uint64_t)a[2], (uint64_t)a[1]);
        break;
    case PLAN_full:
        disk_full(h->disk, until);
        break;
    case PLAN_killtask:
        task_kill_one((unsigned)a[0]);
        break;
    case PLAN_hang:
        h->hang_until_ms = until;
        break;
    case PLAN_bad:
        h->bad_until_ms = until;
        break;
    case PLAN_wrong:
        h->wrong_until_ms = until;
        break;
    case PLAN_rot:
        rot((unsigned)a[0], (uint64_t)a[1]);
        break;
    case PLAN_twin:
        twin((unsigned)a[0], (uint64_t)a[1]);
        break;
    case PLAN_poison:
    case PLAN_VERB_COUNT:
        break;
    }
}

/* The faults stop. */
static void quiet_event(void *arg, uint64_t n)
{
    (void)arg;
    (void)n;
    for (unsigned i = 0; i < world.n_hosts; i++) {
        struct host *h = &world.host[i];
        disk_mend(h->disk);
        h->slow_until_ms = h->bad_until_ms = h->wrong_until_ms = h->hang_until_ms = 0;
        if (h->main)
            h->main->frozen_until_ms = 0;
    }
    net_mend();
}

/* What was found damaged at the coordinator and no agent has is brought once more by who had brought it. Nobody waits for ever for what only a person can end. Hosts that came and went for other reasons put innocent tasks into
 * quarantine: those are let go. Where a point does take its hosts along, the sweeps are cancelled before. */
static void person_event(void *arg, uint64_t n)
{
    const struct plan *p = world.plan;
    bool poison = plan_takes_hosts(p);
    (void)arg;
    if (!poison || !n)
        user_command(&(struct plan_event){ .verb = PLAN_free });
    user_bring();
    for (unsigned i = 0; poison && !n && i < p->n_sweeps; i++)
        user_command(&(struct plan_event){ .verb = PLAN_cancel, .arg = { i } });
    if (n)
        at_ms(world.now_ms + n, person_event, NULL, 0);
}

int sim_run(const struct plan *plan, char why[512], struct sim_stats *stats)
{
    struct err e = { 0 };
    static bool ready;
    if (!ready) {
        randombytes_set_implementation(&randomness);
        vfs_register();
        make_first();
        ready = true;
    }
    world_init(plan);
    check_begin();
    check_move_begin();
    mutants_begin();
    for (unsigned h = 0; h < world.n_hosts; h++) {
        disk_free(&world.host[h].disk);
        world.host[h].disk =
            disk_copy(h == COORDINATOR_HOST && !plan->fresh ? first_store : first[h], h);
    }
    if (users_begin(&e) < 0)
        sim_fail("plan: %s", e.text);
    at_ms(0, start_event, NULL, COORDINATOR_HOST);
    for (unsigned h = FIRST_AGENT_HOST; h < world.n_hosts; h++)
        at_ms(10 * h, start_event, NULL, h);
    for (size_t i = 0; i < plan->n_ev; i++)
        at_ms(plan->ev[i].ms, apply, NULL, i);
    at_ms(plan->quiet_ms, quiet_event, NULL, 0);
    at_ms(plan->quiet_ms + PERSON_MS, person_event, NULL, PERSON_MS);
    world_run(plan->end_ms);
    for (uint64_t ms = 0; ms < GRACE_MS && !world.failed && !check_all_over(); ms += 5000)
        world_run(world.now_ms + 5000);
    check_end();
    *stats = (struct sim_stats){ .turns = world.turns,
                                 .messages = world.messages,
                                 .tasks = world.n_parts,
                                 .crashes = world.crashes,
                                 .virtual_ms = world.now_ms };
    bool failed = world.failed;
    snprintf(why, 512, "%s", world.why);
    world_clear();
    users_clear();
    if (!failed && wrap_fds_open()) {
        snprintf(why, 512, "%u descriptors were never closed", wrap_fds_open());
        failed = true;
    }
    return failed ? -1 : 0;
}
