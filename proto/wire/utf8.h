/* UTF-8 as RFC 3629 has it, for the strings of messages. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

/* n bytes: no overlong form, no surrogate, nothing above U+10FFFF, no NUL. */
bool utf8_valid(const void *p, size_t n);

/* Copy s into out (room bytes with the final 0, at least 1), cut at a character boundary, each bad
 * byte as '?'. Returns the length. */
size_t utf8_clean(const char *s, char *out, size_t room);
