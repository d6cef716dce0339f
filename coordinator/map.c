#include "coordinator/map.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

static char gone_;
#define MAP_GONE ((void *)&gone_)

static size_t home(const struct map *m, uint64_t key)
{
    key ^= key >> 31;
    key *= 0x9e3779b97f4a7c15u;
    return (size_t)(key >> 20) & (m->room - 1);
}

void map_clear(struct map *m)
{
    free(m->slot);
    *m = (struct map){ 0 };
}

static struct map_slot *find(const struct map *m, uint64_t key)
{
    if (!m->room)
        return NULL;
    for (size_t i = home(m, key);; i = (i + 1) & (m->room - 1)) {
        struct map_slot *s = &m->slot[i];
        if (!s->val)
            return NULL;
        if (s->key == key && s->val != MAP_GONE)
            return s;
    }
}

void *map_get(const struct map *m, uint64_t key)
{
    const struct map_slot *s = find(m, key);
    return s ? s->val : NULL;
}

static void place(struct map *m, uint64_t key, void *val)
{
    size_t i = home(m, key);
    while (m->slot[i].val && m->slot[i].val != MAP_GONE)
        i = (i + 1) & (m->room - 1);
    m->dead -= m->slot[i].val == MAP_GONE;
    m->slot[i] = (struct map_slot){ key, val };
    m->used++;
}

static int grow(struct map *m)
{
    struct map old = *m;
    size_t room = old.room ? old.room : 16;
    while ((old.used + 1) * 2 > room)
        room *= 2;
    m->slot = calloc(room, sizeof(*m->slot));
    if (!m->slot) {
        *m = old;
        return -ENOMEM;
    }
    m->room = room;
    m->used = m->dead = 0;
    for (size_t i = 0; i < old.room; i++)
        if (old.slot[i].val && old.slot[i].val != MAP_GONE)
            place(m, old.slot[i].key, old.slot[i].val);
    free(old.slot);
    return 0;
}

int map_put(struct map *m, uint64_t key, void *val)
{
    if (find(m, key))
        return -EEXIST;
    /* never more than two thirds full, removed ones included: a search always meets an empty slot
     */
    if ((m->used + m->dead + 1) * 3 > m->room * 2) {
        int r = grow(m);
        if (r < 0)
            return r;
    }
    place(m, key, val);
    return 0;
}

void map_del(struct map *m, uint64_t key)
{
    struct map_slot *s = find(m, key);
    if (!s)
        return;
    s->val = MAP_GONE;
    m->used--;
    m->dead++;
}
