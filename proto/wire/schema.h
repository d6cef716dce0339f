/* The field lists of msg.h as data: what the encoder, the decoder, the documentation and the tests
 * walk over. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "proto/wire/msg.h"

enum wire_kind { WIRE_KIND_U64, WIRE_KIND_STR, WIRE_KIND_BIN, WIRE_KIND_ID, WIRE_KIND_LIST };

struct wire_part;

/* One field. lo..hi: the value of a U64, the bytes of a STR or BIN, the items of a LIST. */
struct wire_field {
    const char *name;
    enum wire_kind kind;
    size_t off;     /* of the value or pointer in its struct */
    size_t off_len; /* of the length or count; STR, BIN, LIST */
    uint64_t lo, hi;
    const struct wire_part *part; /* LIST */
};

/* The fields of a struct in the order of the frame. */
struct wire_part {
    const char *name;
    size_t size; /* of the struct */
    const struct wire_field *fields;
    size_t n;
};

struct wire_type {
    enum msg_type type;
    unsigned roles;
    struct wire_part part;
};

/* In the order of their numbers; NULL past the last. */
const struct wire_type *wire_type_at(size_t i);
/* NULL = unknown. */
const struct wire_type *wire_type(enum msg_type t);

/* How many of its last fields came later (MSG_ADDED). */
size_t wire_added(enum msg_type t);

/* The struct of a message inside struct msg. */
static inline void *wire_body(struct msg *m)
{
    return &m->agent_hello; /* all members of a union start at one place */
}

/* Pairs question and answer: the place of field req, NULL when the message has none. */
uint64_t *wire_req(struct msg *m);
