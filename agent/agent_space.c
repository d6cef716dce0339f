#include <stdio.h>
#include <stdlib.h>

#include "agent/agent_in.h"
#include "agent/task.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"

/* The first look also tells the tasks to come where the low mark is: they look for themselves, so that they go on also
 * while no agent runs. */
static void tell_tasks(const struct agent *a)
{
    char text[32];
    snprintf(text, sizeof(text), "%llu", (unsigned long long)space_low(&a->space));
    setenv(TASK_LOW_WATER, text, 1);
}

void agent_look_at_space(struct agent *a)
{
    uint64_t now = clock_mono_ms();
    enum space_level was = a->space.level;
    char text[SPACE_TEXT_LEN];
    if (now < a->space_ms || space_look(&a->space, a->data, NULL) < 0)
        return;
    if (!a->space_ms)
        tell_tasks(a);
    a->space_ms = now + SPACE_LOOK_MS;
    if (a->space.level !=
        SPACE_OK) { /* what is only kept in case it is wanted again gives way first */
        uint64_t high = space_high(&a->space), need = high + high / 4;
        uint64_t gone = need > a->space.free_b ? cas_shrink(a->cas, need - a->space.free_b) : 0;
        if (gone) {
            char size[32];
            log_info("little space on %s: %s of the cache removed", a->data, size_text(gone, size));
            space_look(&a->space, a->data, NULL);
        }
    }
    if (a->space.level == was)
        return;
    space_text(&a->space, text);
    if (a->space.level == SPACE_OK)
        log_info("space on %s again: %s", a->data, text);
    else if (a->space.level == SPACE_TIGHT)
        log_warn("little space on %s: %s; nothing new is taken", a->data, text);
    else
        log_warn("no space on %s: %s; tasks that run are paused until there is", a->data, text);
    agent_push(a, (struct core_event){ .kind = CORE_SPACE, .rows = a->space.level != SPACE_OK });
}
