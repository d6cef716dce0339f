/* How soon an agent's messages are answered: what its users see of a link that is in the way. */
#include "coordinator/hub.h"

void hub_agent_trips(struct hub_agent *a, const struct msg_beat *m)
{
    for (size_t i = 0; i < m->n_trips; i++) {
        const struct wire_trips *t = &m->trips[i];
        struct trips_sum *to = t->kind == WIRE_TRIPS_BEAT     ? &a->beats
                               : t->kind == WIRE_TRIPS_RESULT ? &a->results
                                                              : NULL;
        if (to)
            *to = (struct trips_sum){ t->n, t->p50_us, t->p99_us, t->max_us };
    }
}

static json_t *sum_json(const struct trips_sum *s)
{
    if (!s->n)
        return json_null();
    return json_pack(
        "{s:o, s:o, s:o, s:o}", "n", json_u64(s->n), "p50_ms", json_u64((s->p50_us + 999) / 1000),
        "p99_ms", json_u64((s->p99_us + 999) / 1000), "max_ms", json_u64((s->max_us + 999) / 1000));
}

json_t *hub_agent_answers(const struct hub_agent *a)
{
    struct trips_sum cancels;
    if (!a)
        return json_null();
    trips_sum(&a->cancels, &cancels);
    return json_pack("{s:o, s:o, s:o}", "beat", sum_json(&a->beats), "result",
                     sum_json(&a->results), "cancel", sum_json(&cancels));
}
