#include "proto/base/space.h"

#include <stddef.h>
#include <stdio.h>
#include <sys/statvfs.h>

static uint64_t mark(uint64_t given, uint64_t disk_b, unsigned percent, uint64_t most)
{
    if (given != SPACE_AUTO)
        return given;
    uint64_t share = disk_b / 100 * percent;
    return share < most ? share : most;
}

uint64_t space_high(const struct space *s)
{
    return mark(s->high_b, s->disk_b, 5, UINT64_C(1) << 30);
}

uint64_t space_low(const struct space *s)
{
    return mark(s->low_b, s->disk_b, 1, UINT64_C(256) << 20);
}

enum space_level space_step(struct space *s, uint64_t free_b, uint64_t disk_b)
{
    s->free_b = free_b;
    s->disk_b = disk_b;
    uint64_t high = space_high(s), low = space_low(s);
    bool below_low = free_b < low || (s->level == SPACE_PAUSED && free_b < low + low / 4);
    bool below_high = free_b < high || (s->level != SPACE_OK && free_b < high + high / 4);
    s->level = low && below_low ? SPACE_PAUSED : high && below_high ? SPACE_TIGHT : SPACE_OK;
    return s->level;
}

int space_look(struct space *s, const char *path, struct err *e)
{
    struct statvfs fs;
    if (statvfs(path, &fs) < 0)
        return err_sys(e, errno, "%s", path);
    space_step(s, (uint64_t)fs.f_bavail * fs.f_frsize, (uint64_t)fs.f_blocks * fs.f_frsize);
    return 0;
}

const char *space_name(enum space_level l)
{
    static const char *const names[] = { "ok", "tight", "paused" };
    return names[l];
}

char *size_text(uint64_t b, char out[32])
{
    static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB" };
    double d = (double)b;
    size_t k = 0;
    for (; d >= 1024 && k + 1 < sizeof(units) / sizeof(units[0]); k++)
        d /= 1024;
    snprintf(out, 32, k ? "%.1f %s" : "%.0f %s", d, units[k]);
    return out;
}

char *space_text(const struct space *s, char out[SPACE_TEXT_LEN])
{
    char f[32], m[32];
    uint64_t want = s->level == SPACE_PAUSED ? space_low(s) : space_high(s);
    snprintf(out, SPACE_TEXT_LEN, "%s are free on its disk, %s are to stay free",
             size_text(s->free_b, f), size_text(want, m));
    return out;
}
