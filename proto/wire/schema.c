#include "proto/wire/schema.h"

#include <string.h>

/* S is the struct whose list is being walked; each list is expanded once with it defined. */
#define F_U64(nm, l, h)                                                                            \
    { .name = #nm, .kind = WIRE_KIND_U64, .off = offsetof(S, nm), .lo = (l), .hi = (h) },
#define F_STR(nm, l, h)                                                                            \
    { .name = #nm,                                                                                 \
      .kind = WIRE_KIND_STR,                                                                       \
      .off = offsetof(S, nm),                                                                      \
      .off_len = offsetof(S, nm##_len),                                                            \
      .lo = (l),                                                                                   \
      .hi = (h) },
#define F_BIN(nm, l, h)                                                                            \
    { .name = #nm,                                                                                 \
      .kind = WIRE_KIND_BIN,                                                                       \
      .off = offsetof(S, nm),                                                                      \
      .off_len = offsetof(S, nm##_len),                                                            \
      .lo = (l),                                                                                   \
      .hi = (h) },
#define F_ID(nm)                                                                                   \
    { .name = #nm, .kind = WIRE_KIND_ID, .off = offsetof(S, nm), .lo = ID_LEN, .hi = ID_LEN },
#define F_LIST(nm, p, h)                                                                           \
    { .name = #nm,                                                                                 \
      .kind = WIRE_KIND_LIST,                                                                      \
      .off = offsetof(S, nm),                                                                      \
      .off_len = offsetof(S, n_##nm),                                                              \
      .hi = (h),                                                                                   \
      .part = &part_##p },

#define S struct wire_task_ref
static const struct wire_field f_task_ref[] = { PART_TASK_REF(F_U64, F_STR, F_BIN, F_ID, F_LIST) };
#undef S
static const struct wire_part part_task_ref = { "task_ref", sizeof(struct wire_task_ref),
                                                f_task_ref,
                                                sizeof(f_task_ref) / sizeof(f_task_ref[0]) };
#define S struct wire_row
static const struct wire_field f_row[] = { PART_ROW(F_U64, F_STR, F_BIN, F_ID, F_LIST) };
#undef S
static const struct wire_part part_row = { "row", sizeof(struct wire_row), f_row,
                                           sizeof(f_row) / sizeof(f_row[0]) };

#define S struct wire_held
static const struct wire_field f_held[] = { PART_HELD(F_U64, F_STR, F_BIN, F_ID, F_LIST) };
#undef S
static const struct wire_part part_held = { "held", sizeof(struct wire_held), f_held,
                                            sizeof(f_held) / sizeof(f_held[0]) };

#define S struct wire_trips
static const struct wire_field f_trips[] = { PART_TRIPS(F_U64, F_STR, F_BIN, F_ID, F_LIST) };
#undef S
static const struct wire_part part_trips = { "trips", sizeof(struct wire_trips), f_trips,
                                             sizeof(f_trips) / sizeof(f_trips[0]) };

/* A list does not know the name of its struct, so a typedef local to one function a message stands
 * in for it. */
#define S T
#define X(number, nm, NAME, who)                                                                   \
    static const struct wire_type *type_##nm(void)                                                 \
    {                                                                                              \
        typedef struct msg_##nm T;                                                                 \
        static const struct wire_field f[] = { MSG_##NAME(F_U64, F_STR, F_BIN, F_ID, F_LIST) };    \
        static const struct wire_type t = { M_##NAME,                                              \
                                            who,                                                   \
                                            { #nm, sizeof(T), f, sizeof(f) / sizeof(f[0]) } };     \
        return &t;                                                                                 \
    }
MSG_TYPES(X)
#undef X
#undef S

static const struct wire_type *(*const types[])(void) = {
#define X(number, nm, NAME, who) type_##nm,
    MSG_TYPES(X)
#undef X
};

const struct wire_type *wire_type_at(size_t i)
{
    return i < sizeof(types) / sizeof(types[0]) ? types[i]() : NULL;
}

const struct wire_type *wire_type(enum msg_type t)
{
    switch (t) {
#define X(number, nm, NAME, who)                                                                   \
    case number:                                                                                   \
        return type_##nm();
        MSG_TYPES(X)
#undef X
    }
    return NULL;
}

size_t wire_added(enum msg_type t)
{
    switch (t) {
#define X(NAME, n)                                                                                 \
    case M_##NAME:                                                                                 \
        return n;
        MSG_ADDED(X)
#undef X
    default:
        return 0;
    }
}

uint64_t *wire_req(struct msg *m)
{
    const struct wire_type *t = wire_type(m->type);
    if (!t || strcmp(t->part.fields[0].name, "req"))
        return NULL;
    return (uint64_t *)(void *)((char *)wire_body(m) + t->part.fields[0].off);
}

const char *msg_name(enum msg_type t)
{
    const struct wire_type *w = wire_type(t);
    return w ? w->part.name : "?";
}

unsigned msg_roles(enum msg_type t)
{
    const struct wire_type *w = wire_type(t);
    return w ? w->roles : 0;
}

static const struct {
    enum role role;
    const char *name;
} roles[] = {
    { ROLE_COORDINATOR, "coordinator" },
    { ROLE_AGENT, "agent" },
    { ROLE_USER, "user" },
    { ROLE_READER, "reader" },
};

const char *role_name(enum role r)
{
    for (size_t i = 0; i < sizeof(roles) / sizeof(roles[0]); i++)
        if (roles[i].role == r)
            return roles[i].name;
    return "?";
}

int role_parse(const char *s, enum role *ret)
{
    for (size_t i = 0; i < sizeof(roles) / sizeof(roles[0]); i++)
        if (!strcmp(roles[i].name, s)) {
            *ret = roles[i].role;
            return 0;
        }
    return -EINVAL;
}
