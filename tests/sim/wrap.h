/* System calls of the fleet's code on paths below /sim, by --wrap of the linker. */
#pragma once
#include <stdbool.h>

bool wrap_fd_ready(int fd); /* as poll(2) would say */
unsigned wrap_fds_open(void);
struct bulk;
int wrap_fd_bulk(const struct bulk *b); /* ready when that has something to say */
