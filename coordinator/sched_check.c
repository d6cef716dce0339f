/* What must hold between two steps. */
#include "coordinator/sched_in.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int broken(struct err *e, const char *rule, uint64_t no)
{
    return err_set(e, SF_EINTEGRITY, "scheduler: %s (%llu)", rule, (unsigned long long)no);
}

static int check_task(const struct sched *s, const struct sched_task *t, struct err *e)
{
    if (t->state == TASK_ENDED)
        return broken(e, "an ended task is still here", t->num);
    if (sched_task(s, t->num) != t)
        return broken(e, "a task is not in the table", t->num);
    if (task_waits(t) != !t->agent)
        return broken(e, "a task has an agent exactly while it does not wait", t->num);
    if (!task_waits(t) && (!t->n || t->epoch > s->cfg.epoch))
        return broken(e, "a running task has an attempt of this epoch or an earlier one", t->num);
    if (t->state == TASK_QUARANTINED && (!t->noted || !t->past || t->past->n_kills > SCHED_KILLS))
        return broken(e, "what is in quarantine is noted with its reason", t->num);
    if (t->num >= s->cfg.next_task)
        return broken(e, "task numbers only grow", t->num);
    if (!spans_ok(&t->left))
        return broken(e, "ranges of a task are sorted and disjoint", t->num);
    if (t->kind == TASK_TRACE && (t->sweep || t->left.total || t->trace->task != t))
        return broken(e, "a trace task makes one trace and holds no points", t->num);
    return 0;
}

int sched_check(const struct sched *s, struct err *e)
{
    int r;
    size_t n_tasks = 0;
    if (s->bad_moves)
        return broken(e, "tasks move only as the table allows", s->bad_moves);
    for (size_t i = 0; i < s->n_order; i++) {
        const struct sched_sweep *w = s->order[i];
        if (i && s->order[i - 1]->priority < w->priority)
            return broken(e, "sweeps stand in order", w->seq);
        if (sched_sweep(s, w->seq) != w || !spans_ok(&w->todo))
            return broken(e, "ranges of a sweep are sorted and disjoint", w->seq);
        if (w->todo.n && w->todo.v[w->todo.n - 1].hi > w->points)
            return broken(e, "a point is below the number of points", w->seq);
        struct spans all = { 0 };
        uint64_t in_tasks = 0;
        r = spans_add_all(&all, &w->todo);
        LIST_EACH(p, n, &w->tasks)
        {
            const struct sched_task *t = LIST_OF(p, struct sched_task, by_sweep);
            n_tasks++;
            if (r >= 0)
                r = check_task(s, t, e);
            if (r >= 0)
                r = spans_add_all(&all, &t->left);
            if (r >= 0 && (t->kind != TASK_POINTS || t->sweep != w))
                r = broken(e, "a sweep lists its own points tasks", t->num);
            in_tasks += t->left.total;
        }
        uint64_t total = all.total;
        spans_clear(&all);
        if (r < 0)
            return r;
        if (in_tasks != w->in_tasks)
            return broken(e, "points in tasks are counted", w->seq);
        if (total != w->todo.total + in_tasks)
            return broken(e, "a point waits or is in one task, never both", w->seq);
        if (!w->over && !sched_left(w))
            return broken(e, "a sweep without missing points is over", w->seq);
        if (w->over && list_empty(&w->tasks))
            return broken(e, "a sweep that is over and runs nothing is forgotten", w->seq);
    }
    LIST_EACH(p, n, &s->trace_tasks)
    {
        n_tasks++;
        if ((r = check_task(s, LIST_OF(p, struct sched_task, by_sweep), e)) < 0)
            return r;
    }
    LIST_EACH(i, k, &s->job_list)
    {
        const struct sched_job *j = LIST_OF(i, struct sched_job, all);
        if (sched_job(s, j->seq) != j || list_empty(&j->tasks))
            return broken(e, "a job is here while a task of it is not over", j->seq);
        LIST_EACH(p, n, &j->tasks)
        {
            const struct sched_task *t = LIST_OF(p, struct sched_task, by_sweep);
            n_tasks++;
            if ((r = check_task(s, t, e)) < 0)
                return r;
            if (t->job != j || t->kind < TASK_EXEC || t->left.total)
                return broken(e, "a job lists its own tasks, which hold no points", t->num);
            if (t->agent && t->needs->pinned &&
                memcmp(t->agent->install, t->needs->install, 16) != 0)
                return broken(e, "a task for one host runs there", t->num);
        }
    }
    if (n_tasks != s->tasks.used)
        return broken(e, "each task is in one list", n_tasks);
    LIST_EACH(q, m, &s->agent_list)
    {
        const struct sched_agent *a = LIST_OF(q, struct sched_agent, all);
        uint32_t count[TASK_KINDS] = { 0 };
        bool exclusive = false;
        LIST_EACH(p, n, &a->tasks)
        {
            const struct sched_task *t = LIST_OF(p, struct sched_task, by_agent);
            if (t->agent != a)
                return broken(e, "an agent lists its own tasks", t->num);
            count[t->kind]++;
            exclusive |= sched_alone(t);
        }
        if (exclusive && a->tasks.next->next != &a->tasks)
            return broken(e, "an exclusive task is alone", sched_key(a->install));
        if (memcmp(count, a->n_tasks, sizeof(count)) != 0)
            return broken(e, "an agent's tasks are counted", sched_key(a->install));
    }
    return 0;
}
