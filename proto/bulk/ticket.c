#include <string.h>

#include "proto/bulk/bulk.h"
#include "proto/lib/aead.h"

_Static_assert((int)BULK_AES256GCM == (int)AEAD_AES256GCM &&
                   (int)BULK_XCHACHA20 == (int)AEAD_XCHACHA20 && (int)BULK_KEY_LEN == (int)AEAD_KEY,
               "one numbering");

uint64_t bulk_features(void)
{
    return WIRE_BULK | (aead_has(AEAD_AES256GCM) ? WIRE_BULK_AES : 0u);
}

void bulk_ticket_new(struct bulk_ticket *t, const struct id *artefact, uint64_t features)
{
    *t = (struct bulk_ticket){ .alg = features & WIRE_BULK_AES ? BULK_AES256GCM : BULK_XCHACHA20,
                               .artefact = *artefact,
                               .ttl_ms = BULK_TTL_MS };
    random_bytes(t->id, sizeof(t->id));
    random_bytes(t->keys, sizeof(t->keys));
}

struct msg bulk_ticket_msg(const struct bulk_ticket *t, uint64_t req, bool send, const char *dial)
{
    return (struct msg){ .type = M_BULK_TICKET,
                         .bulk_ticket = { .req = req,
                                          .id = t->artefact,
                                          .ticket = t->id,
                                          .ticket_len = sizeof(t->id),
                                          .keys = t->keys[0],
                                          .keys_len = sizeof(t->keys),
                                          .alg = t->alg,
                                          .send = send,
                                          .dial = dial,
                                          .ttl_ms = t->ttl_ms } };
}

int bulk_ticket_parse(const struct msg_bulk_ticket *m, struct bulk_ticket *ret, struct err *e)
{
    if (!aead_has((enum aead_alg)m->alg))
        return err_set(e, SF_EFORMAT, "bulk: cipher %llu is not here", (unsigned long long)m->alg);
    *ret = (struct bulk_ticket){ .alg = (enum bulk_alg)m->alg,
                                 .artefact = m->id,
                                 .ttl_ms = (uint32_t)m->ttl_ms };
    memcpy(ret->id, m->ticket, sizeof(ret->id));
    memcpy(ret->keys, m->keys, sizeof(ret->keys));
    return 0;
}
