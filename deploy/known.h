/* Lines of known_hosts, as far as libssh2 1.10 misreads them: it takes markers for host names, and knows no patterns. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct known_line {
    enum { KNOWN_KEY, KNOWN_REVOKED, KNOWN_AUTHORITY } mark;
    const char
        *hosts; /* patterns with commas between, or one hashed name; borrowed like the next */
    size_t hosts_n;
    const char *key; /* its kind, then base64, then maybe a comment */
};

/* Take one line apart. false for comments, empty lines, unknown markers and what is too short: it names nobody. */
bool known_parse(const char *line, struct known_line *ret);
bool known_hashed(const struct known_line *k); /* only libssh2 knows whom it names */
/* Whether the patterns (*, ?, ! in front: nobody whom it fits) name the address, with this port or without any. */
bool known_names(const struct known_line *k, const char *address, uint64_t port);
/* Whether its key is of the kind of a raw one, which starts with it. */
bool known_same_kind(const struct known_line *k, const void *raw, size_t n);
