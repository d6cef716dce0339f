#include <criterion/criterion.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "coordinator/store.h"
#include "perf/rowout.h"
#include "proto/base/clean.h"
#include "proto/base/file.h"

static char dir[512];

static void make_dir(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof(dir), "%s/store-XXXXXX", tmp ? tmp : "/tmp");
    cr_assert_not_null(mkdtemp(dir));
}
static void remove_dir(void)
{
    cr_assert_eq(dir_remove(dir, NULL), 0);
}
TestSuite(store, .init = make_dir, .fini = remove_dir);

static struct store *opened(void)
{
    struct store *st = NULL;
    struct err e = { 0 };
    cr_assert_eq(store_open(dir, &st, &e), 0, "%s", e.text);
    return st;
}

static uint64_t add_sweep(struct store *st, const char *name, const char *request, uint64_t points,
                          uint8_t no)
{
    struct store_sweep w = { .points = points, .submitted_ms = 1700000000000u + no };
    struct err e = { 0 };
    memset(w.id.b, no, sizeof(w.id.b));
    snprintf(w.name, sizeof(w.name), "%s", name);
    snprintf(w.request_id, sizeof(w.request_id), "%s", request);
    cr_assert_eq(store_add_sweep(st, &w, "{\"rules\":\"model\"}", "admin", &e), 0, "%s", e.text);
    return w.seq;
}

static struct store_row row(uint64_t sweep, uint64_t index, uint64_t time_ps)
{
    struct store_row r = { .sweep = sweep,
                           .index = index,
                           .stats = { .time_ps = time_ps, .requests = 5 } };
    memset(r.point.b, (int)index + 1, sizeof(r.point.b));
    arch_default(&r.arch);
    r.epoch = 3;
    r.n = 1;
    r.task = 7;
    r.engine = 1;
    r.started_ms = 1700000000123u;
    r.duration_us = 2500;
    return r;
}

static struct store_sweep sweep_now(struct store *st, uint64_t seq)
{
    struct store_sweep w;
    cr_assert_eq(store_sweep(st, seq, &w, NULL, NULL), 0);
    return w;
}

Test(store, the_first_valid_row_wins_equal_ones_are_counted_different_ones_are_kept_aside)
{
    struct store *st = opened();
    struct err e = { 0 };
    uint64_t seq = add_sweep(st, "a", "", 10, 1);
    struct store_row r = row(seq, 4, 100);
    cr_assert_eq(store_begin(st, &e), 0);
    cr_assert_eq(store_put_row(st, &r, 1, &e), PUT_FIRST, "%s", e.text);
    cr_assert_eq(store_put_row(st, &r, 1, &e), PUT_EQUAL);
    r.stats.time_ps++;
    cr_assert_eq(store_put_row(st, &r, 1, &e), PUT_DIFFERS, "%s", e.text);
    struct store_row given_up = {
        .sweep = seq, .index = 5, .status = ROW_FAILED, .error = "lost", .by = BY_COORDINATOR
    };
    cr_assert_eq(store_put_row(st, &given_up, 1, &e), PUT_FIRST);
    cr_assert_eq(sweep_now(st, seq).failed, 1);
    r = row(seq, 5, 200);
    cr_assert_eq(store_put_row(st, &r, 1, &e), PUT_REPLACED);
    given_up.index = 4;
    cr_assert_eq(store_put_row(st, &given_up, 1, &e), PUT_EQUAL, "a result is never given up");
    cr_assert_eq(store_commit(st, &e), 0);
    store_free(&st);
    st = opened();
    struct store_sweep w = sweep_now(st, seq);
    cr_assert_eq(w.done, 2);
    cr_assert_eq(w.failed, 0);
    cr_assert_eq(w.equal, 1);
    cr_assert_eq(w.differing, 1);
    struct spans missing = { 0 };
    cr_assert_eq(store_missing(st, seq, 10, &missing, &e), 0);
    cr_assert_eq(missing.n, 2);
    cr_assert_eq(missing.total, 8);
    spans_clear(&missing);
    store_free(&st);
}

Test(store, what_was_rolled_back_was_never_there)
{
    struct store *st = opened();
    struct err e = { 0 };
    uint64_t seq = add_sweep(st, "a", "", 10, 1);
    struct store_row r = row(seq, 1, 1);
    store_begin(st, &e);
    cr_assert_eq(store_put_row(st, &r, 1, &e), PUT_FIRST);
    store_rollback(st);
    cr_assert_eq(sweep_now(st, seq).done, 0);
    cr_assert_eq(store_put_row(st, &r, 1, &e), PUT_FIRST);
    store_free(&st);
}

Test(store, a_known_point_is_copied_only_from_the_same_engine)
{
    struct store *st = opened();
    struct err e = { 0 };
    uint64_t a = add_sweep(st, "a", "", 10, 1), b = add_sweep(st, "b", "", 10, 2), other = 2,
             same = 1;
    struct store_row r = row(a, 4, 100);
    store_put_row(st, &r, 1, &e);
    struct store_row to = { .sweep = b, .index = 9, .point = r.point, .arch = r.arch };
    cr_assert_eq(store_put_known(st, &to, &other, 1, &e), 0);
    cr_assert_eq(store_is_known(st, &to, &same, 1, &e), 1);
    cr_assert_eq(store_put_known(st, &to, &same, 1, &e), 1, "%s", e.text);
    cr_assert_eq(sweep_now(st, b).known, 1);
    cr_assert_eq(sweep_now(st, b).done, 1);
    r.sweep = b;
    r.index = 9;
    cr_assert_eq(store_put_row(st, &r, 1, &e), PUT_EQUAL);
    store_free(&st);
}

static json_t *answer(struct store *st, bool sql, const char *args, int want,
                      char next[STORE_CURSOR], const char *cursor)
{
    struct buf b = BUF_INIT(1 << 20);
    struct err e = { 0 };
    json_t *a = json_loads(args, 0, NULL), *doc = NULL;
    int r = sql ? store_sql(st, a, 1000, cursor, &b, next, &e)
                : store_results(st, a, cursor, &b, next, &e);
    cr_assert_eq(r, want, "%s: %d %s", args, r, e.text);
    if (r == 0) {
        doc = json_loadb((const char *)b.data, b.len, 0, NULL);
        cr_assert_not_null(doc, "%s", (const char *)b.data);
    }
    json_decref(a);
    buf_clear(&b);
    return doc;
}

Test(store, many_rows_at_once_become_what_they_become_one_by_one)
{
    enum { N = 300 };
    static struct store_row many[N];
    enum store_put put[N], want;
    struct store *st = opened();
    struct err e = { 0 };
    uint64_t a = add_sweep(st, "a", "", 1000, 1);
    for (unsigned i = 0; i < N; i++) {
        many[i] = row(a, 2 * i, i);
        many[i].trace = 1;
        many[i].arch.queue = 1 + i;
        if (i % 10 == 3)
            many[i].status = ROW_FAILED, many[i].error = "why";
        if (i % 100 == 7)
            many[i].status = ROW_INVALID, many[i].point = (struct id){ 0 };
    }
    store_begin(st, &e);
    struct store_row equal = many[200], other = many[250], given_up = many[251];
    other.stats.requests++;
    given_up.by = BY_COORDINATOR;
    given_up.status = ROW_FAILED;
    cr_assert_eq(store_put_row(st, &equal, 1, &e), PUT_FIRST);
    cr_assert_eq(store_put_row(st, &other, 1, &e), PUT_FIRST);
    cr_assert_eq(store_put_row(st, &given_up, 1, &e), PUT_FIRST);
    cr_assert_eq(store_put_rows(st, many, N, 1, put, &e), 0, "%s", e.text);
    cr_assert_eq(store_commit(st, &e), 0);
    for (unsigned i = 0; i < N; i++) {
        want = i == 200 ? PUT_EQUAL : i == 250 ? PUT_DIFFERS : i == 251 ? PUT_REPLACED : PUT_FIRST;
        cr_assert_eq(put[i], want, "%u: %d", i, (int)put[i]);
    }
    struct store_sweep w = sweep_now(st, a);
    cr_assert_eq(w.done, 267);
    cr_assert_eq(w.failed, 30);
    cr_assert_eq(w.invalid, 3);
    cr_assert_eq(w.equal, 1);
    cr_assert_eq(w.differing, 1);
    /* again, backwards, and one twice in one message */
    struct store_row back[3] = { many[5], many[4], many[4] };
    cr_assert_eq(store_put_rows(st, back, 3, 1, put, &e), 0, "%s", e.text);
    cr_assert(put[0] == PUT_EQUAL && put[1] == PUT_EQUAL && put[2] == PUT_EQUAL);
    back[1].index = back[2].index = 901;
    cr_assert_eq(store_put_rows(st, back + 1, 2, 1, put, &e), 0, "%s", e.text);
    cr_assert(put[0] == PUT_FIRST && put[1] == PUT_EQUAL);
    /* byte for byte what a row alone would be */
    char next[STORE_CURSOR], sql[300];
    struct store_row one = many[9];
    one.index = 900;
    cr_assert_eq(store_put_row(st, &one, 1, &e), PUT_FIRST);
    snprintf(sql, sizeof(sql), "{\"sweeps\":[\"a\"],\"where\":[\"queue=10\"],\"provenance\":true}");
    json_t *doc = answer(st, false, sql, 0, next, ""), *rows = json_object_get(doc, "rows");
    cr_assert_eq(json_array_size(rows), 2);
    json_t *x = json_array_get(rows, 0), *y = json_array_get(rows, 1);
    cr_assert_eq(json_integer_value(json_array_get(x, 1)), 18);
    json_array_set(x, 1, json_array_get(y, 1));
    cr_assert(json_equal(x, y));
    json_decref(doc);
    store_free(&st);
}

Test(store, points_that_may_be_known_are_found_without_their_ids)
{
    enum { N = 200 };
    static struct store_row many[N];
    bool maybe[N];
    struct store *st = opened();
    struct err e = { 0 };
    uint64_t a = add_sweep(st, "a", "", N, 1);
    for (unsigned i = 0; i < N; i++) {
        many[i] = row(a, i, i);
        many[i].trace = 3;
        many[i].arch.link_gbps = i < 20 ? 1u << i : 777 + i;
    }
    cr_assert_eq(store_maybe_known(st, many, N, maybe, &e), 0, "%s", e.text);
    for (unsigned i = 0; i < N; i++)
        cr_assert_not(maybe[i]);
    many[5].status = ROW_FAILED;
    cr_assert_eq(store_put_row(st, &many[5], 1, &e), PUT_FIRST);
    cr_assert_eq(store_put_row(st, &many[6], 1, &e), PUT_FIRST);
    cr_assert_eq(store_put_row(st, &many[150], 1, &e), PUT_FIRST);
    cr_assert_eq(store_maybe_known(st, many, N, maybe, &e), 0, "%s", e.text);
    for (unsigned i = 0; i < N; i++)
        cr_assert_eq(maybe[i], i == 6 || i == 150, "%u", i);
    many[6].trace = 4;
    cr_assert_eq(store_maybe_known(st, many, N, maybe, &e), 0, "%s", e.text);
    cr_assert_not(maybe[6], "of another trace");
    store_free(&st);
}

Test(store, sweeps_are_found_by_id_prefix_name_and_last)
{
    struct store *st = opened();
    struct err e = { 0 };
    struct store_sweep w;
    cr_assert_eq(store_find_sweep(st, "last", &w, &e), -ENOENT);
    uint64_t a = add_sweep(st, "night", "req", 10, 0x11), b = add_sweep(st, "night", "", 10, 0x12);
    cr_assert_eq(store_find_sweep(st, "11111111", &w, &e), 0);
    cr_assert_eq(w.seq, a);
    cr_assert_eq(store_find_sweep(st, "121212121", &w, &e), 0);
    cr_assert_eq(w.seq, b);
    cr_assert_eq(store_find_sweep(st, "night", &w, &e), 0);
    cr_assert_eq(w.seq, b, "the newest of the name");
    cr_assert_eq(store_find_sweep(st, "last", &w, &e), 0);
    cr_assert_eq(store_find_sweep(st, "99999999", &w, &e), -ENOENT);
    cr_assert_eq(store_sweep_by_request(st, "req", &w, &e), 0);
    cr_assert_eq(w.seq, a);
    struct store_sweep again = { .points = 1, .request_id = "req" };
    memset(again.id.b, 9, 32);
    cr_assert_eq(store_add_sweep(st, &again, "{}", NULL, &e), -EEXIST);
    store_free(&st);
}

static int count_open(void *ctx, struct store_attempt *a)
{
    cr_assert_eq(a->points.total, 8);
    cr_assert_eq(a->points.v[1].hi, 10);
    ++*(int *)ctx;
    return 0;
}

Test(store, open_attempts_survive_and_ended_ones_do_not_come_back)
{
    struct store *st = opened();
    struct err e = { 0 };
    for (uint64_t i = 1; i <= 3; i++) {
        struct store_attempt a = { .task = i, .epoch = 1, .n = 1, .sweep = 1, .kind = "points" };
        spans_add(&a.points, 0, 6);
        spans_add(&a.points, 8, 10);
        cr_assert_eq(store_add_attempt(st, &a, &e), 0, "%s", e.text);
        spans_clear(&a.points);
    }
    cr_assert_eq(store_end_attempt(st, 2, 1, 1, "signal", 0, 11, 5, "tail", 4, &e), 0, "%s",
                 e.text);
    store_free(&st);
    st = opened();
    int n = 0;
    cr_assert_eq(store_open_attempts(st, count_open, &n, &e), 0);
    cr_assert_eq(n, 2);
    store_free(&st);
}

static int see_task(void *ctx, struct store_task *t)
{
    struct store_task *all = ctx;
    all[0].n++;
    all[all[0].n] = *t;
    t->points = (struct spans){ 0 };
    return 0;
}

Test(store, what_went_wrong_with_a_task_survives)
{
    struct store *st = opened();
    struct err e = { 0 };
    struct store_task t = { .task = 4, .sweep = 1, .kind = "points", .fails = 2, .n_kills = 2 };
    snprintf(t.why, sizeof(t.why), "signal 11");
    memset(t.kill[1].install, 9, 16);
    t.kill[1].boot = 5;
    spans_add(&t.points, 3, 6);
    spans_add(&t.points, 8, 9);
    cr_assert_eq(store_note_task(st, &t, &e), 0, "%s", e.text);
    t.fails = 3;
    t.quarantined = true;
    cr_assert_eq(store_note_task(st, &t, &e), 0, "a later note replaces it: %s", e.text);
    t.task = 900;
    cr_assert_eq(store_note_task(st, &t, &e), 0);
    spans_clear(&t.points);
    for (uint64_t n = 1; n <= 2; n++) {
        struct store_attempt a = { .task = 4, .epoch = 1, .n = n, .sweep = 1, .kind = "points" };
        cr_assert_eq(store_add_attempt(st, &a, &e), 0);
        cr_assert_eq(store_end_attempt(st, 4, 1, n, "signal", 0, 11, 5, "tail", 4, &e), 0);
    }
    struct store_attempt open = { .task = 900, .epoch = 1, .n = 1, .sweep = 1, .kind = "points" };
    cr_assert_eq(store_add_attempt(st, &open, &e), 0);
    store_free(&st);
    st = opened();
    struct store_task all[4] = { 0 };
    cr_assert_eq(store_tasks(st, see_task, all, &e), 0, "%s", e.text);
    cr_assert_eq(all[0].n, 1, "one with an open attempt comes with that");
    cr_assert_eq(all[1].task, 4);
    cr_assert_eq(all[1].n, 2);
    cr_assert_eq(all[1].fails, 3);
    cr_assert(all[1].quarantined);
    cr_assert_eq(all[1].n_kills, 2);
    cr_assert_eq(all[1].kill[1].boot, 5);
    cr_assert_eq(all[1].points.total, 4);
    cr_assert_str_eq(all[1].why, "signal 11");
    spans_clear(&all[1].points);
    uint64_t next = 0;
    cr_assert_eq(store_next_task(st, &next, &e), 0);
    cr_assert_eq(next, 901, "no number is given twice");
    cr_assert_eq(store_forget_task(st, 4, &e), 0);
    cr_assert_eq(store_task(st, 4, &t, &e), -ENOENT);
    store_free(&st);
}

Test(store, one_coordinator_a_store_and_readers_beside_it)
{
    struct store *st = opened(), *two = NULL;
    struct err e = { 0 };
    cr_assert_eq(store_open(dir, &two, &e), -EBUSY);
    cr_assert(strstr(e.text, "another coordinator"));
    cr_assert_eq(err_exit(e.code), 1);
    add_sweep(st, "a", "", 1, 1);
    cr_assert_eq(store_open_ro(dir, &two, &e), 0, "%s", e.text);
    struct store_sweep w;
    cr_assert_eq(store_find_sweep(two, "last", &w, &e), 0, "%s", e.text);
    cr_assert_lt(store_set(two, "epoch", 5, &e), 0, "a reader cannot write");
    store_free(&two);
    store_free(&st);
    cr_assert_eq(store_open_ro(dir, &two, &e), 0, "%s", e.text);
    cr_assert_eq(store_find_sweep(two, "last", &w, &e), 0);
    store_free(&two);
}

Test(store, results_come_in_pages_in_order_and_filtered)
{
    struct store *st = opened();
    struct err e = { 0 };
    char next[STORE_CURSOR], last[STORE_CURSOR];
    store_begin(st, &e);
    uint64_t a = add_sweep(st, "a", "", 1500, 1), b = add_sweep(st, "b", "", 1500, 2);
    for (uint64_t i = 0; i < 1500; i++) {
        struct store_row r = row(b, 1499 - i, i);
        r.arch.queue = 1 + (uint32_t)(i % 2);
        store_put_row(st, &r, 1, &e);
        r.sweep = a;
        store_put_row(st, &r, 1, &e);
    }
    cr_assert_eq(store_commit(st, &e), 0);
    size_t n = 0;
    int64_t before = -1;
    strcpy(next, "");
    do {
        strcpy(last, next);
        json_t *doc = answer(st, false, "{}", 0, next, last), *v;
        size_t i;
        cr_assert_eq(json_array_size(json_object_get(doc, "columns")), store_n_columns);
        json_array_foreach (json_object_get(doc, "rows"), i, v) {
            int64_t at = json_integer_value(json_array_get(v, 1)) +
                         (strcmp(json_string_value(json_array_get(v, 0)), "b") ? 0 : 10000);
            cr_assert_gt(at, before);
            before = at;
            n++;
        }
        json_decref(doc);
    } while (*next);
    cr_assert_eq(n, 3000);
    json_t *doc =
        answer(st, false,
               "{\"sweeps\":[\"b\"],\"where\":[\"queue=2\",[\"index\",\"0\"]],\"provenance\":true}",
               0, next, "");
    cr_assert_eq(json_array_size(json_object_get(doc, "rows")), 1);
    cr_assert_eq(json_array_size(json_object_get(doc, "columns")),
                 store_n_columns + store_n_provenance);
    const json_t *r0 = json_array_get(json_object_get(doc, "rows"), 0);
    size_t k = 0;
    while (strcmp(store_column_names()[k], "started") != 0)
        k++;
    cr_assert_str_eq(json_string_value(json_array_get(r0, k)), "2023-11-14T22:13:20.123Z");
    json_decref(doc);
    json_decref(answer(st, false, "{\"where\":[\"nonsense=2\"]}", -SF_EUSAGE, next, ""));
    json_t *same = answer(
        st, false, "{\"sweeps\":[\"b\"],\"where\":[\"queue=02\",\"index=0\",\"inorder=false\"]}", 0,
        next, "");
    cr_assert_eq(json_array_size(json_object_get(same, "rows")), 1, "read as in SWEEP.ini");
    json_decref(same);
    static const char *const never[] = { "queue=2K", "index=-1",      "mbps=fast",       "tenants=",
                                         "task=0x1", "inorder=maybe", "iotlb_policy=mru" };
    for (size_t i = 0; i < ARRAY_LEN(never); i++) {
        char args[100];
        snprintf(args, sizeof(args), "{\"where\":[\"%s\"]}", never[i]);
        json_decref(answer(st, false, args, -SF_EUSAGE, next, ""));
    }
    json_decref(answer(st, false, "{\"sweeps\":[\"nobody\"]}", -ENOENT, next, ""));
    store_free(&st);
}

Test(store, columns_are_those_of_a_sweep_on_one_host)
{
    size_t n;
    const char *const *names = result_columns(&n);
    cr_assert_eq(n, store_n_columns);
    for (size_t i = 0; i < n; i++)
        cr_assert_str_eq(names[i], store_column_names()[i]);
}

Test(store, sql_is_one_select_over_the_views)
{
    struct store *st = opened();
    struct err e = { 0 };
    char next[STORE_CURSOR];
    uint64_t a = add_sweep(st, "a", "", 10, 1);
    struct store_row r = row(a, 0, UINT64_MAX / 2);
    cr_assert_eq(store_put_row(st, &r, 1, &e), PUT_FIRST);
    json_t *doc =
        answer(st, true, "{\"sql\":\"SELECT count(*) AS n, max(time_ps), name FROM results;\"}", 0,
               next, "");
    cr_assert_eq(
        json_integer_value(json_array_get(json_array_get(json_object_get(doc, "rows"), 0), 0)), 1);
    cr_assert_str_eq(
        json_string_value(json_array_get(json_array_get(json_object_get(doc, "rows"), 0), 1)),
        "9223372036854775807");
    json_decref(doc);
    json_decref(answer(
        st, true, "{\"sql\":\"WITH x AS (SELECT * FROM results) SELECT s.state FROM sweeps s, x\"}",
        0, next, ""));
    doc = answer(st, true, "{\"sql\":\"-- why\\n /* so */ select 1 AS last_row\"}", 0, next, "");
    cr_assert_eq(json_array_size(json_object_get(doc, "rows")), 1);
    json_decref(doc);
    doc = answer(st, true, "{\"sql\":\"SELECT 9e999, -9223372036854775807, -5, 'end'\"}", 0, next,
                 "");
    json_t *cells = json_array_get(json_object_get(doc, "rows"), 0);
    cr_assert_eq(json_array_size(cells), 4);
    cr_assert(json_is_null(json_array_get(cells, 0)));
    cr_assert_str_eq(json_string_value(json_array_get(cells, 1)), "-9223372036854775807");
    cr_assert_eq(json_integer_value(json_array_get(cells, 2)), -5);
    json_decref(doc);
    static const char *const refused[] = {
        "",
        "DELETE FROM results",
        "SELECT 1; SELECT 2",
        "SELECT * FROM t_agent",
        "SELECT info FROM main.T_JOBTASK",
        "SELECT json FROM [t_job]",
        "WITH results AS (SELECT * FROM t_agent) SELECT * FROM results",
        "SELECT * FROM sqlite_master",
        "SELECT * FROM meta",
        "PRAGMA user_version",
        "ATTACH 'x' AS y",
        "EXPLAIN SELECT 1",
        "VALUES(1)",
        "-- SELECT\\nVALUES(1)",
        "SELECT load_extension('x')",
        "SELEC",
        "CREATE TABLE x(y)",
        "UPDATE sweeps SET name = 'x'",
    };
    for (size_t i = 0; i < ARRAY_LEN(refused); i++) {
        char args[256];
        snprintf(args, sizeof(args), "{\"sql\":\"%s\"}", refused[i]);
        json_decref(answer(st, true, args, -SF_EUSAGE, next, ""));
    }
    json_decref(answer(st, true,
                       "{\"sql\":\"WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) "
                       "SELECT sum(x) FROM c\"}",
                       -ETIMEDOUT, next, ""));
    store_free(&st);
}

Test(store, failed_rows_are_taken_back_for_a_retry)
{
    struct store *st = opened();
    struct err e = { 0 };
    uint64_t a = add_sweep(st, "a", "", 10, 1);
    for (uint64_t i = 0; i < 10; i++) {
        struct store_row r = row(a, i, 1);
        if (i >= 3 && i < 6)
            r.status = ROW_FAILED;
        cr_assert_eq(store_put_row(st, &r, 1, &e), PUT_FIRST);
    }
    struct spans s = { 0 };
    cr_assert_eq(store_take_failed(st, a, &s, &e), 0);
    cr_assert(s.n == 1 && s.v[0].lo == 3 && s.v[0].hi == 6);
    cr_assert_eq(sweep_now(st, a).failed, 0);
    spans_clear(&s);
    store_free(&st);
}

Test(store, an_agents_key_belongs_to_one_install)
{
    struct store *st = opened();
    struct err e = { 0 };
    uint64_t reg = 0, reg2 = 0;
    struct store_agent a = { .key = "k", .name = "n1", .boot = 1, .cores = 2 }, b = a;
    memset(b.install, 1, 16);
    cr_assert_eq(store_add_agent(st, &a, "{\"cpu\":\"x\"}", &reg, &e), 0, "%s", e.text);
    cr_assert_eq(store_add_agent(st, &b, "{}", &reg2, &e), -EEXIST);
    cr_assert_eq(store_agent_drained(st, a.install, true, "disk", 0, 5000, &e), 0);
    a.boot = 2;
    cr_assert_eq(store_add_agent(st, &a, "{\"cpu\":\"x\"}", &reg2, &e), 0);
    cr_assert_neq(reg, reg2);
    cr_assert(a.drained, "a restart does not undo a drain");
    cr_assert_eq(store_find_agent(st, "n1", &b, &e), 0);
    cr_assert_eq(b.boot, 2);
    store_free(&st);
}

static void raw(const char *sql)
{
    char path[600];
    sqlite3 *db = NULL;
    char *why = NULL;
    snprintf(path, sizeof(path), "%s/store.db", dir);
    cr_assert_eq(sqlite3_open(path, &db), SQLITE_OK);
    cr_assert_eq(sqlite3_exec(db, sql, NULL, NULL, &why), SQLITE_OK, "%s", why ? why : "");
    sqlite3_close(db);
}

Test(store, a_store_of_version_1_moves_forward_with_its_rows)
{
    CLEANUP(buf_clear) struct buf b = BUF_INIT(1 << 20);
    struct err e = { 0 };
    const char *src = getenv("SIOFLEET_SRC");
    CLEANUP(freep) char *path = path_fmt("%s/tests/data/store/v1.sql", src ? src : ".");
    cr_assert_eq(file_read(path, &b, &e), 0, "%s", e.text);
    raw((const char *)b.data);
    raw("INSERT INTO t_trace(num,id) VALUES(99,randomblob(32));"
        "INSERT INTO t_recipe(id,trace,json) VALUES(zeroblob(32),99,'{}')");
    struct store *st = NULL;
    cr_assert_eq(store_open_ro(dir, &st, &e), -SF_EFORMAT, "a reader does not migrate");
    st = opened();
    struct store_sweep w;
    cr_assert_eq(store_find_sweep(st, "last", &w, &e), 0, "%s", e.text);
    cr_assert_str_eq(w.name, "first light");
    cr_assert_eq(w.done, 2);
    char next[STORE_CURSOR];
    json_t *doc = answer(st, false, "{}", 0, next, "");
    cr_assert_eq(json_array_size(json_object_get(doc, "rows")), 2);
    json_decref(doc);
    struct store_row old = { .sweep = 1, .index = 1, .trace = 1 };
    uint64_t engine = 0;
    memset(old.point.b, 2, sizeof(old.point.b));
    arch_default(&old.arch);
    old.arch.queue = 3;
    cr_assert_eq(store_is_known(st, &old, &engine, 1, &e), 0);
    old.arch.queue = 2;
    cr_assert_eq(store_is_known(st, &old, &engine, 1, &e), 1, "its points are still known");
    cr_assert_eq(store_event(st, 1, "sweep", "x", "of version 2", &e), 0, "%s", e.text);
    uint64_t epoch = 0;
    cr_assert_eq(store_get(st, "epoch", &epoch, &e), 0);
    cr_assert_eq(epoch, 4);
    struct store_trace t;
    cr_assert_eq(store_recipe(st, &(struct id){ 0 }, &t, &e), -ENOENT,
                 "traces of the former file version are built again");
    store_free(&st);
    st = opened(); /* and once more changes nothing */
    store_free(&st);
}

/* The frozen store of version 12 and what it answered. */
static void version_12(void)
{
    CLEANUP(buf_clear) struct buf b = BUF_INIT(1 << 20);
    struct err e = { 0 };
    const char *src = getenv("SIOFLEET_SRC");
    CLEANUP(freep) char *path = path_fmt("%s/tests/data/store/v12.sql", src ? src : ".");
    cr_assert_eq(file_read(path, &b, &e), 0, "%s", e.text);
    raw((const char *)b.data);
}

static void expect_answer_of_12(struct store *st)
{
    const char *src = getenv("SIOFLEET_SRC");
    CLEANUP(freep) char *path = path_fmt("%s/tests/data/store/v12.json", src ? src : ".");
    char next[STORE_CURSOR];
    json_t *want = json_load_file(path, 0, NULL), *got = answer(st, false, "{}", 0, next, "");
    cr_assert_not_null(want);
    cr_expect(json_equal(json_object_get(want, "columns"), json_object_get(got, "columns")));
    cr_expect(json_equal(json_object_get(want, "rows"), json_object_get(got, "rows")));
    json_decref(want);
    json_decref(got);
}

/* A column for each number became one value for all of them: what is asked by name is answered as before. */
Test(store, a_store_of_version_12_gives_the_same_results_when_its_numbers_are_packed)
{
    version_12();
    struct store *st = opened();
    char next[STORE_CURSOR];
    expect_answer_of_12(st);
    json_t *got = answer(
        st, false, "{\"where\":[[\"iotlb_policy\",\"oracle\"],[\"mbps\",\"12486\"]]}", 0, next, "");
    cr_assert_eq(json_array_size(json_object_get(got, "rows")), 2);
    json_decref(got);
    got = answer(st, true,
                 "{\"sql\":\"SELECT count(*), sum(iotlb_hit) FROM results WHERE queue=32\"}", 0,
                 next, "");
    json_t *cells = json_array_get(json_object_get(got, "rows"), 0);
    cr_assert_eq(json_integer_value(json_array_get(cells, 0)), 6);
    cr_assert_eq(json_integer_value(json_array_get(cells, 1)), 2060);
    json_decref(got);
    store_free(&st);
}

Test(store, a_damaged_store_of_version_12_is_salvaged_with_its_numbers)
{
    struct store *st = NULL;
    struct err e = { 0 };
    sqlite3 *db = NULL;
    sqlite3_stmt *s = NULL;
    json_t *saved = NULL;
    version_12();
    CLEANUP(freep) char *path = path_fmt("%s/store.db", dir), *aside = path_fmt("%s/aside", dir);
    cr_assert_eq(sqlite3_open(path, &db), SQLITE_OK);
    sqlite3_prepare_v2(db, "SELECT rootpage FROM sqlite_master WHERE name = 't_event'", -1, &s,
                       NULL);
    cr_assert_eq(sqlite3_step(s), SQLITE_ROW);
    off_t at = (sqlite3_column_int(s, 0) - 1) * (off_t)4096;
    sqlite3_finalize(s);
    sqlite3_close(db);
    CLEANUP(closep) int fd = open(path, O_WRONLY);
    cr_assert_eq(pwrite(fd, "\x4d", 1, at), 1); /* no kind of page */
    cr_assert_eq(store_open(dir, &st, &e), -SF_EINTEGRITY);
    cr_assert_eq(store_salvage(dir, aside, &saved, &e), 0, "%s", e.text);
    json_decref(saved);
    st = opened();
    expect_answer_of_12(st);
    store_free(&st);
}

/* Every number of a row comes back by its name, whatever is big, small or 0; no bytes in their place do harm. */
Test(store, packed_numbers_are_read_by_name)
{
    static const uint64_t sizes[] = { 0, 1, 127, 128, 16383, 16384, UINT32_MAX, INT64_MAX };
    struct store *st = opened();
    struct err e = { 0 };
    char next[STORE_CURSOR], sql[200];
    uint64_t seq = add_sweep(st, "a", "", 1000, 1), times[ARRAY_LEN(sizes) + 1];
    for (size_t i = 0; i <= ARRAY_LEN(sizes); i++) {
        struct store_row r = row(seq, i, 0);
        uint64_t *v = (uint64_t *)(void *)&r.stats;
        for (size_t k = 0; k < ROW_STATS_N; k++)
            v[k] = i < ARRAY_LEN(sizes) ? sizes[(i + k) % ARRAY_LEN(sizes)] : 0;
        r.arch.pf_history = i < ARRAY_LEN(sizes) ? (uint32_t)sizes[i] : 7;
        times[i] = r.stats.jain_ppm;
        cr_assert_eq(store_put_row(st, &r, 1, &e), PUT_FIRST, "%s", e.text);
        cr_assert_eq(store_put_row(st, &r, 1, &e), PUT_EQUAL, "%s", e.text);
        cr_assert_eq(store_row_is(st, seq, i, &r.stats, &e), 1);
        v[ROW_STATS_N - 1]++;
        cr_assert_eq(store_row_is(st, seq, i, &r.stats, &e), 0);
    }
    for (size_t i = 0; i <= ARRAY_LEN(sizes); i++) {
        snprintf(sql, sizeof(sql),
                 "{\"sql\":\"SELECT jain_ppm, pf_history, time_ps FROM results WHERE \\\"index\\\""
                 " = %zu\"}",
                 i);
        json_t *doc = answer(st, true, sql, 0, next, "");
        json_t *cells = json_array_get(json_object_get(doc, "rows"), 0);
        uint64_t got[3] = { 0 };
        for (size_t k = 0; k < 3; k++) {
            const json_t *c = json_array_get(cells, k);
            got[k] = json_is_string(c) ? strtoull(json_string_value(c), NULL, 10)
                                       : (uint64_t)json_integer_value(c);
        }
        cr_expect_eq(got[0], times[i], "%zu", i);
        cr_expect_eq(got[1], i < ARRAY_LEN(sizes) ? (uint32_t)sizes[i] : 7, "%zu", i);
        cr_expect_eq(got[2], i < ARRAY_LEN(sizes) ? sizes[i] : 0, "%zu", i);
        json_decref(doc);
    }
    raw("UPDATE t_row SET stats = CASE idx % 4 WHEN 0 THEN zeroblob(3) WHEN 1 THEN "
        "x'ffffffffffffffff"
        "ffffffffffffffffffffffff' WHEN 2 THEN randomblob(999) ELSE x'80' END,"
        " arch = CASE idx % 3 WHEN 0 THEN x'' WHEN 1 THEN randomblob(7) ELSE NULL END");
    store_free(&st); /* it writes the log back: the pages have their sums */
    st = opened();
    json_t *doc = answer(st, false, "{}", 0, next, "");
    cr_assert_eq(json_array_size(json_object_get(doc, "rows")), ARRAY_LEN(sizes) + 1);
    json_decref(doc);
    store_free(&st);
}

Test(store, a_newer_store_and_a_damaged_one_are_refused)
{
    struct store *st = opened();
    struct err e = { 0 };
    store_free(&st);
    raw("PRAGMA user_version = 99");
    cr_assert_eq(store_open(dir, &st, &e), -SF_EFORMAT);
    cr_assert(strstr(e.text, "version 99"));
    char path[600];
    snprintf(path, sizeof(path), "%s/store.db", dir);
    cr_assert_eq(file_write(path, "this is no database, whatever it is called", 42, 0600, true, &e),
                 0);
    cr_assert_eq(store_open(dir, &st, &e), -SF_EINTEGRITY, "%s", e.text);
    cr_assert_eq(err_exit(e.code), 4);
}

Test(store, late_and_foreign_rows_are_counted_and_kept_up_to_a_cap)
{
    struct store *st = opened();
    struct err e = { 0 };
    uint64_t sweep = add_sweep(st, "a", "", 10, 1);
    struct store_row r = row(sweep, 3, 5);
    uint8_t install[16] = { 4 };
    cr_assert_eq(store_sweep_late(st, sweep, 1, 2, &e), 0, "%s", e.text);
    cr_assert_eq(store_aside(st, &r, "late", install, 99, &e), 0, "%s", e.text);
    struct store_sweep w = sweep_now(st, sweep);
    cr_assert_eq(w.late, 1);
    cr_assert_eq(w.foreign, 2);
    cr_assert_eq(store_sweep_late(st, sweep, STORE_ASIDE, 0, &e), 0);
    cr_assert_eq(store_aside(st, &r, "late", install, 99, &e), 0);
    sqlite3 *db;
    sqlite3_stmt *s;
    char path[600];
    snprintf(path, sizeof(path), "%s/store.db", dir);
    cr_assert_eq(sqlite3_open(path, &db), SQLITE_OK);
    cr_assert_eq(sqlite3_prepare_v2(db, "SELECT count(*) FROM t_aside", -1, &s, NULL), SQLITE_OK);
    cr_assert_eq(sqlite3_step(s), SQLITE_ROW);
    cr_assert_eq(sqlite3_column_int(s, 0), 1);
    sqlite3_finalize(s);
    sqlite3_close(db);
    store_free(&st);
}

Test(store, a_canary_is_a_known_row_of_another_install)
{
    struct store *st = opened();
    struct err e = { 0 };
    uint64_t sweep = add_sweep(st, "a", "", 10, 1), reg[2], engine = 0;
    struct id program = { { 7 } };
    cr_assert_eq(store_engine(st, &program, &engine, &e), 0);
    struct store_agent a[2] = { { .install = { 1 }, .key = "k1", .name = "n1", .boot = 1 },
                                { .install = { 2 }, .key = "k2", .name = "n2", .boot = 1 } };
    for (int i = 0; i < 2; i++)
        cr_assert_eq(store_add_agent(st, &a[i], "{}", &reg[i], &e), 0, "%s", e.text);
    struct store_trace t = { .id = { { 9 } }, .tenants = 4 };
    cr_assert_eq(store_add_trace(st, &t, "{}", &e), 0, "%s", e.text);
    struct store_row slow = row(sweep, 1, 5), quick = row(sweep, 2, 6);
    slow.trace = quick.trace = t.num;
    slow.reg = quick.reg = reg[0];
    slow.engine = quick.engine = engine;
    quick.duration_us = 10;
    cr_assert_eq(store_put_row(st, &slow, 1, &e), PUT_FIRST);
    cr_assert_eq(store_put_row(st, &quick, 1, &e), PUT_FIRST);
    struct store_canary c;
    cr_assert_eq(store_pick_canary(st, a[1].install, engine, 100, &c, &e), -ENOENT,
                 "its trace is not here");
    struct store_artefact f = { .id = t.id, .size_b = 50, .kind = "trace" };
    cr_assert_eq(store_add_artefact(st, &f, NULL, &e), 0);
    cr_assert_eq(store_pick_canary(st, a[1].install, engine, 100, &c, &e), 0, "%s", e.text);
    cr_assert_eq(c.index, 2, "the quickest");
    cr_assert_eq(store_pick_canary(st, a[1].install, engine, 49, &c, &e), -ENOENT, "too big");
    cr_assert_eq(store_pick_canary(st, a[0].install, engine, 100, &c, &e), -ENOENT, "its own");
    cr_assert_eq(store_pick_canary(st, a[1].install, engine + 1, 100, &c, &e), -ENOENT);
    cr_assert_eq(store_row_is(st, sweep, 2, &quick.stats, &e), 1);
    cr_assert_eq(store_row_is(st, sweep, 2, &slow.stats, &e), 0);
    uint64_t at;
    char verdict[16];
    cr_assert_eq(store_last_canary(st, a[1].install, engine, &at, verdict, &e), -ENOENT);
    cr_assert_eq(store_put_canary(st, a[1].install, engine, 5, sweep, 2, "equal", &e), 0);
    cr_assert_eq(store_put_canary(st, a[1].install, engine, 6, sweep, 2, "differs", &e), 0);
    cr_assert_eq(store_last_canary(st, a[1].install, engine, &at, verdict, &e), 0);
    cr_assert_eq(at, 6);
    cr_assert_str_eq(verdict, "differs");
    store_free(&st);
}
