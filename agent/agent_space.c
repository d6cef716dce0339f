#include <stdio.h>
#include <stdlib.h>

#include "agent/agent_in.h"
#include "agent/task.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"

void agent_disks(struct agent *a)
{
    const struct space marks = { .high_b = a->conf->high_water_b, .low_b = a->conf->low_water_b };
    char text[32];
    a->disks[DISK_DATA] = (struct agent_disk){ a->data, marks };
    a->disks[DISK_TASKS] = (struct agent_disk){ a->tasks, marks };
    a->disks[DISK_CACHE] = (struct agent_disk){ a->cache, marks };
    a->space = marks;
    /* tasks look for themselves, so that they go on also while no agent runs */
    snprintf(text, sizeof(text), "%llu", (unsigned long long)marks.low_b);
    setenv(TASK_LOW_WATER, text, 1);
}

/* Looks at all; a->space is that of the folder returned, which has the least. */
static const char *look(struct agent *a)
{
    const struct agent_disk *least = &a->disks[DISK_DATA];
    for (struct agent_disk *d = a->disks; d < a->disks + AGENT_DISKS; d++)
        if (space_look(&d->space, d->dir, NULL) == 0 && d->space.level > least->space.level)
            least = d;
    a->space = least->space;
    return least->dir;
}

void agent_look_at_space(struct agent *a)
{
    uint64_t now = clock_mono_ms();
    enum space_level was = a->space.level;
    char text[SPACE_TEXT_LEN];
    if (now < a->space_ms)
        return;
    a->space_ms = now + SPACE_LOOK_MS;
    const char *dir = look(a);
    const struct space *cache = &a->disks[DISK_CACHE].space;
    if (cache->level !=
        SPACE_OK) { /* what is only kept in case it is wanted again gives way first */
        uint64_t high = space_high(cache), need = high + high / 4;
        uint64_t gone = need > cache->free_b ? cas_shrink(a->cas, need - cache->free_b) : 0;
        if (gone) {
            char size[32];
            log_info("little space on %s: %s of the cache removed", a->cache,
                     size_text(gone, size));
            dir = look(a);
        }
    }
    if (a->space.level == was)
        return;
    space_text(&a->space, text);
    if (a->space.level == SPACE_OK)
        log_info("space on %s again: %s", dir, text);
    else if (a->space.level == SPACE_TIGHT)
        log_warn("little space on %s: %s; nothing new is taken", dir, text);
    else
        log_warn("no space on %s: %s; tasks that run are paused until there is", dir, text);
    agent_push(a, (struct core_event){ .kind = CORE_SPACE, .rows = a->space.level != SPACE_OK });
}
