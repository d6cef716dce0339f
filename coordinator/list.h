/* A list whose links live in its members: constant-time add and removal, no allocation. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

struct list {
    struct list *prev, *next;
};

static inline void list_init(struct list *l)
{
    l->prev = l->next = l;
}
static inline bool list_empty(const struct list *l)
{
    return l->next == l;
}
static inline void list_add(struct list *head, struct list *n) /* at the end */
{
    n->prev = head->prev;
    n->next = head;
    head->prev->next = n;
    head->prev = n;
}
static inline void list_del(struct list *n) /* also on one that is in no list but was initialised */
{
    n->prev->next = n->next;
    n->next->prev = n->prev;
    list_init(n);
}

#define LIST_OF(p, type, member) ((type *)(void *)((char *)(p)-offsetof(type, member)))
/* Walk with the current member free to go: n is read before the body runs. */
#define LIST_EACH(p, n, head)                                                                      \
    for (struct list *p = (head)->next, *n = p->next; p != (head); p = n, n = p->next)
