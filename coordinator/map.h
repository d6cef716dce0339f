/* 64-bit key -> pointer. Open addressing; grows by doubling; about 24 bytes an entry. */
#pragma once
#include <stddef.h>
#include <stdint.h>

struct map {
    struct map_slot {
        uint64_t key;
        void *val; /* NULL = never used, MAP_GONE = removed */
    } * slot;
    size_t room, used, dead; /* room is 0 or a power of two */
};

void map_clear(struct map *m);
void *map_get(const struct map *m, uint64_t key); /* NULL = absent */
/* val is kept (borrowed), not NULL. Returns 0, -EEXIST, -ENOMEM. */
int map_put(struct map *m, uint64_t key, void *val);
void map_del(struct map *m, uint64_t key);
