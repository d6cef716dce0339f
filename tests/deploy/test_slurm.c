/* deploy/slurm_conf and the reader of deploy/slurm: CONF.ini, and what squeue prints. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "deploy/embed.h"
#include "deploy/slurm.h"
#include "proto/base/clean.h"
#include "proto/base/file.h"

static int load(const char *text, struct slurm_conf **c, struct err *e)
{
    CLEANUP(freep)
    char *path = path_fmt("%s/slurm-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    cr_assert_eq(write_all(fd, text, strlen(text)), 0);
    close(fd);
    int r = slurm_conf_load(path, c, e);
    unlink(path);
    return r;
}

#define FLEET "[fleet]\ncoordinator=tcp://h:7700\nserver_key=/k.pub\n"

Test(slurm_conf, keys_and_their_defaults)
{
    CLEANUP(slurm_conf_free) struct slurm_conf *c = NULL;
    struct err e = { 0 };
    cr_assert_eq(load(FLEET "[slurm]\ndata=/shared\ncores=4\nmemory=2G\nwalltime=90s\n"
                            "options = --exclusive  --gres=gpu:1\nlabels=room=2\n",
                      &c, &e),
                 0, "%s", e.text);
    cr_expect_str_eq(c->name, "slurm");
    cr_expect_eq(c->points, 4, "one agent for as many points as it has cores");
    cr_expect_eq(c->memory_mib, 2048);
    cr_expect_eq(c->walltime_ms, 90000);
    cr_expect_eq(c->idle_ms, 300000);
    cr_expect(c->min == 0 && c->max == 8);
    cr_expect_str_eq(c->options[0], "--exclusive");
    cr_expect_str_eq(c->options[1], "--gres=gpu:1");
    cr_expect_null(c->options[2]);
}

Test(slurm_conf, the_template_is_one_that_loads)
{
    CLEANUP(slurm_conf_free) struct slurm_conf *c = NULL;
    struct err e = { 0 };
    cr_expect_eq(load(embed_slurm, &c, &e), 0, "%s", e.text);
    /* and so do all the keys that it only shows */
    CLEANUP(freep) char *all = calloc(1, embed_slurm_n + 1);
    size_t n = 0;
    for (size_t i = 0; i < embed_slurm_n; i++)
        if (embed_slurm[i] != ';' || (i && embed_slurm[i - 1] != '\n') || i == 0)
            all[n++] = embed_slurm[i];
    slurm_conf_free(&c);
    cr_expect_eq(load(all, &c, &e), 0, "%s", e.text);
    cr_expect(c && c->reservation && c->options[1]);
}

Test(slurm_conf, what_is_wrong_is_said_with_its_line)
{
    static const struct {
        const char *text, *want;
    } rows[] = {
        { "[slurm]\ndata=/d\n", "[fleet] needs coordinator= and server_key=" },
        { FLEET "[slurm]\nmax=3\n", "[slurm] needs data=" },
        { FLEET "[slurm]\ndata=/d\nspeed=9\n", ":6: unknown key 'speed' in [slurm]" },
        { FLEET "[slurm x]\ndata=/d\n", ":4: [slurm x] is neither" },
        { FLEET "[slurm]\ndata=/d\nmax=0\n", ":6: " },
        { FLEET "[slurm]\ndata=/d\nwalltime=5s\n", ":6: walltime= must be at least 60000 ms" },
        { FLEET "[slurm]\ndata=/d\nwalltime=1m\ndrain=2m\n", "drain= must be shorter" },
        { FLEET "[slurm]\ndata=/d\nname=../x\n", "name=../x" },
        { FLEET "[slurm]\ndata=/d\nlabels=x\n", "labels=x is not k=v" },
        { FLEET "[slurm]\ndata=/d\\e\n", "without backslashes" },
        { FLEET "[slurm]\ndata=/d\noptions=evil.sh\n", ":6: options= are words like" },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        CLEANUP(slurm_conf_free) struct slurm_conf *c = NULL;
        struct err e = { 0 };
        cr_expect_eq(load(rows[i].text, &c, &e), -SF_EUSAGE, "row %zu", i);
        cr_expect(strstr(e.text, rows[i].want), "row %zu: %s", i, e.text);
    }
}

Test(slurm, lines_of_the_queue)
{
    char text[] = "12|RUNNING|None|1-02:03:04|n7|/shared/lab-2\n"
                  "9|PENDING|Resources|1:00||/shared/with|bar\n"
                  "10|TIMEOUT|TimeLimit|INVALID|n1|/shared/lab-1\n"
                  "11|COMPLETING|None|UNLIMITED|n1|/x\n"
                  "13|REQUEUE_HOLD|launch_failed_requeued_held|5|n1|/y\n"
                  "7_3|RUNNING|None|1:00|n1|/array\n"
                  "slurm_load_jobs error: something\n"
                  "14|RUNNING|None\n";
    struct slurm_list l = { 0 };
    struct err e = { 0 };
    cr_assert_eq(slurm_parse(text, &l, &e), 0);
    cr_assert_eq(l.n, 5);
    cr_expect_eq(l.v[0].id, 9, "oldest first");
    cr_expect_eq(l.v[0].state, SLURM_PENDING);
    cr_expect_str_eq(l.v[0].reason, "Resources");
    cr_expect_str_eq(l.v[0].dir, "/shared/with|bar");
    cr_expect_eq(l.v[1].state, SLURM_ENDED);
    cr_expect_eq(l.v[1].left_ms, UINT64_MAX);
    cr_expect_eq(l.v[2].state, SLURM_ENDING);
    cr_expect_eq(l.v[3].state, SLURM_RUNNING);
    cr_expect_eq(l.v[3].left_ms, ((26 * 60 + 3) * 60 + 4) * 1000ull);
    cr_expect_eq(l.v[4].state, SLURM_PENDING);
    cr_expect_eq(l.v[4].left_ms, 5000);
    slurm_list_clear(&l);
    char none[] = "";
    cr_expect_eq(slurm_parse(none, &l, &e), 0);
    cr_expect_eq(l.n, 0);
}
