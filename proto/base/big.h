/* Memory for large tables. A first touch of a page costs the kernel about as much as working on what fits into it, so tables of
 * megabytes ask for huge pages. */
#pragma once
#include <stddef.h>

/* Like malloc(): freed with free(), NULL without memory. Tables of 1 MiB and more are aligned to huge pages, and take them where the
 * kernel has some; nothing else differs. */
void *big_alloc(size_t n);
