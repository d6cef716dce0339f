#include "proto/base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "proto/base/clock.h"

static struct {
    char who[96];
    bool json;
    enum log_level max;
} conf = { .max = LOG_LEVEL_INFO };

void log_init(const char *who, bool json, enum log_level max)
{
    snprintf(conf.who, sizeof(conf.who), "%s", who ? who : "");
    conf.json = json;
    conf.max = max;
}

/* Append s to out as the inside of a JSON string. */
static size_t json_escape(char *out, size_t cap, const char *s)
{
    size_t n = 0;
    for (; *s && n + 7 < cap; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\') {
            out[n++] = '\\';
            out[n++] = (char)c;
        } else if (c < 0x20 || c == 0x7f) {
            n += (size_t)snprintf(out + n, cap - n, "\\u%04x", c);
        } else {
            out[n++] = (char)c;
        }
    }
    out[n] = '\0';
    return n;
}

static void emit(enum log_level level, const char *fmt, va_list ap)
{
    static const char *const names[] = { "error", "warning", "info", "debug" };
    if (level > conf.max)
        return;
    char text[1024], line[2600];
    vsnprintf(text, sizeof(text), fmt, ap);
    int n;
    if (conf.json) {
        char esc[2200], now[CLOCK_RFC3339_LEN];
        json_escape(esc, sizeof(esc), text);
        clock_rfc3339(clock_wall_ms(), now);
        n = snprintf(line, sizeof(line),
                     "{\"time\":\"%s\",\"level\":\"%s\",\"who\":\"%s\",\"text\":\"%s\"}\n", now,
                     names[level], conf.who, esc);
    } else {
        for (char *p = text; *p; p++)
            if ((unsigned char)*p < 0x20 || *p == 0x7f)
                *p = '?';
        n = snprintf(line, sizeof(line), "siofleet%s%s%s: %s%s\n", conf.who[0] ? "[" : "", conf.who,
                     conf.who[0] ? "]" : "", level == LOG_LEVEL_WARN ? "warning: " : "", text);
    }
    if (n > (int)sizeof(line) - 1)
        n = (int)sizeof(line) - 1;
    ssize_t w = write(STDERR_FILENO, line, (size_t)n);
    (void)w; /* nowhere left to complain */
}

#define LOG_FN(name, level)                                                                        \
    void name(const char *fmt, ...)                                                                \
    {                                                                                              \
        va_list ap;                                                                                \
        va_start(ap, fmt);                                                                         \
        emit(level, fmt, ap);                                                                      \
        va_end(ap);                                                                                \
    }
LOG_FN(log_error, LOG_LEVEL_ERROR)
LOG_FN(log_warn, LOG_LEVEL_WARN)
LOG_FN(log_info, LOG_LEVEL_INFO)
