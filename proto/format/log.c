#include "proto/format/log.h"

#include <stdlib.h>
#include <string.h>

#include "proto/base/clean.h"
#include "proto/format/log_file.h"

const struct frame_kind slog_kind = { .magic = { (char)0x89, 'S', 'F', 'L', 'O', 'G', '\r', '\n' },
                                      .what = "log",
                                      .version = 1,
                                      .header_b = 8 };

static const char *const kinds[LOG_KINDS] = {
    "",         "cc_update",  "cc_hit", "slpte_fetch", "page_update",
    "page_hit", "invalidate", "fault",  "ats"
};

const char *slog_kind_name(unsigned kind)
{
    return kind < LOG_KINDS ? kinds[kind] : "?";
}

static const char *const sources[] = { "text", "ring", "stock" };

const char *slog_source_name(enum slog_source s)
{
    return (unsigned)s < ARRAY_LEN(sources) ? sources[s] : "?";
}

void slog_info_clear(struct slog_info *i)
{
    free(i->refused);
    free(i->devices);
    *i = (struct slog_info){ 0 };
}

bool slog_is(const void *first, size_t n)
{
    return n >= 8 && !memcmp(first, slog_kind.magic, 8);
}
