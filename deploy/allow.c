#include "deploy/allow.h"

#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "deploy/job.h"
#include "proto/base/clean.h"

struct allow {
    char *data; /* local; NULL = remote */
    bool remote, known;
    struct job job;
    struct place_result result;
    struct key_pub *list; /* what is let in, as known now */
    size_t n;
    pthread_mutex_t lock;
};

static struct allow *allow_new(void)
{
    struct allow *a = calloc(1, sizeof(*a));
    if (a)
        pthread_mutex_init(&a->lock, NULL);
    return a;
}

char *allow_data_of(const char *server_key)
{
    char real[PATH_MAX];
    if (!realpath(server_key, real))
        return NULL;
    char *slash = strrchr(real, '/');
    if (!slash)
        return NULL;
    *slash = '\0';
    size_t n = strlen(real);
    if (n < 6 || strcmp(real + n - 5, "/keys") != 0)
        return NULL;
    return strndup(real, n - 5);
}

int allow_local(const char *data, struct allow **ret, struct err *e)
{
    CLEANUP(allow_free) struct allow *a = allow_new();
    if (!a || !(a->data = strdup(data)))
        return err_sys(e, ENOMEM, "%s", data);
    *ret = TAKE(a);
    return 0;
}

int allow_remote(const struct job_plan *plan, const struct host *host, struct allow **ret,
                 struct err *e)
{
    struct allow *a = allow_new();
    if (!a)
        return err_sys(e, ENOMEM, "%s", host->name);
    a->remote = true;
    a->result.actions = json_array();
    a->job = (struct job){ .p = plan, .h = host, .ret = &a->result };
    *ret = a;
    return 0;
}

void allow_free(struct allow **ap)
{
    struct allow *a = *ap;
    *ap = NULL;
    if (!a)
        return;
    job_clear(&a->job);
    place_result_clear(&a->result);
    pthread_mutex_destroy(&a->lock);
    free(a->list);
    free(a->data);
    free(a);
}

/* The failure of the coordinator's host, as an error of whoever asked. */
static int remote_failed(struct allow *a, int r, struct err *e)
{
    err_set(e, -r, "coordinator on '%s': %s", a->job.h->name, a->result.message);
    job_forgive(&a->job);
    return r;
}

static int call(struct allow *a, const struct words *w, struct ssh_result *res, struct err *e)
{
    int r = a->job.ssh ? 0 : job_connect(&a->job);
    if (r == 0)
        r = job_call(&a->job, w, NULL, NULL, a->job.p->timeout_ms, res);
    if (r == -ECONNRESET || r == -ETIMEDOUT)
        job_disconnect(&a->job);
    return r < 0 ? remote_failed(a, r, e) : 0;
}

/* Where the key stands in the list; a->n = nowhere. */
static size_t find(const struct allow *a, const struct key_pub *pub)
{
    size_t i = 0;
    while (i < a->n && (strcmp(a->list[i].name, pub->name) || strcmp(a->list[i].z85, pub->z85)))
        i++;
    return i;
}

static int add(struct allow *a, const struct key_pub *pub)
{
    struct key_pub *v = realloc(a->list, (a->n + 1) * sizeof(*v));
    if (!v)
        return -ENOMEM;
    a->list = v;
    v[a->n++] = *pub;
    return 0;
}

/* The list is read once a run: with many hosts most keys are in it already. */
static int learn(struct allow *a, struct err *e)
{
    if (a->known)
        return 0;
    if (!a->remote) {
        CLEANUP(freep) char *dir = keys_dir(a->data);
        int r = dir ? keys_list(dir, &a->list, &a->n, e) : err_sys(e, ENOMEM, "%s", a->data);
        if (r < 0)
            return r;
    } else {
        struct words w = { .n = 0 };
        CLEANUP(ssh_result_clear) struct ssh_result res = { 0 };
        words_add(&w, "allowed", NULL);
        int r = call(a, &w, &res, e);
        if (r < 0)
            return r;
        char *save = NULL;
        for (char *line = res.out.len ? strtok_r((char *)res.out.data, "\n", &save) : NULL; line;
             line = strtok_r(NULL, "\n", &save)) {
            struct key_pub pub;
            if (key_parse_pub(line, strlen(line), a->job.h->name, &pub, NULL) == 0 &&
                add(a, &pub) < 0)
                return err_sys(e, ENOMEM, "%s", a->job.h->name);
        }
    }
    a->known = true;
    return 0;
}

static int allow_locked(struct allow *a, const struct key_pub *pub, struct err *e)
{
    int r = learn(a, e);
    if (r < 0)
        return r;
    if (find(a, pub) < a->n)
        return 0;
    if (a->remote) {
        char line[256];
        snprintf(line, sizeof(line), "siofleet-key 1 %s %s %s", role_name(pub->role), pub->name,
                 pub->z85);
        struct words w = { .n = 0 };
        words_add(&w, "allow", line, NULL);
        r = call(a, &w, NULL, e);
    } else {
        r = keys_allow(a->data, pub, e);
    }
    if (r == 0)
        r = add(a, pub) < 0 ? err_sys(e, ENOMEM, "%s", pub->name) : 1;
    return r;
}

int allow_add(struct allow *a, const struct key_pub *pub, struct err *e)
{
    pthread_mutex_lock(&a->lock);
    int r = allow_locked(a, pub, e);
    pthread_mutex_unlock(&a->lock);
    return r;
}

static int remove_locked(struct allow *a, const struct key_pub *pub, struct err *e)
{
    int r = learn(a, e);
    if (r < 0)
        return r;
    size_t i = find(a, pub);
    if (i == a->n)
        return 0;
    if (a->remote) {
        struct words w = { .n = 0 };
        words_add(&w, "revoke", pub->name, NULL);
        r = call(a, &w, NULL, e);
    } else {
        r = keys_revoke(a->data, pub->name, e);
    }
    if (r < 0 && r != -ENOENT)
        return r;
    a->list[i] = a->list[--a->n];
    return 1;
}

int allow_remove(struct allow *a, const struct key_pub *pub, struct err *e)
{
    pthread_mutex_lock(&a->lock);
    int r = remove_locked(a, pub, e);
    pthread_mutex_unlock(&a->lock);
    return r;
}
