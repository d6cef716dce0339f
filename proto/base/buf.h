/* A byte buffer that grows up to a cap given at its birth: one bad peer cannot exhaust the process.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

struct buf {
    uint8_t *data; /* owned; always one byte longer than len, which is 0, once anything was added */
    size_t len, room, cap;
};

#define BUF_INIT(max) ((struct buf){ .cap = (max) })

void buf_init(struct buf *b, size_t cap);
void buf_clear(struct buf *b); /* frees; the buffer may be used again with the same cap */
static inline void buf_reset(struct buf *b)
{
    b->len = 0;
}

/* Append. Return 0, -EMSGSIZE past the cap, -ENOMEM. On failure the content is as before. */
int buf_add(struct buf *b, const void *p, size_t n);
int buf_adds(struct buf *b, const char *s);
int buf_addf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Room for n more bytes at data + len, or NULL. The caller raises len itself. */
uint8_t *buf_reserve(struct buf *b, size_t n);
