/* Any bytes as the rows file of a task: whole rows, a torn tail or an error; what counts can be read. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "agent/spool.h"
#include "proto/base/file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static char path[64];
    if (!path[0])
        snprintf(path, sizeof(path), "/dev/shm/sf-fuzz-%ld", (long)getpid());
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || write_all(fd, data, n) < 0)
        abort();
    close(fd);
    struct spool *s;
    struct err e;
    struct wire_row rows[16];
    struct buf block = BUF_INIT(1 << 20);
    if (spool_open(path, &s, &e) < 0)
        abort();
    spool_poll(s, &e);
    for (uint64_t at = 0; at < spool_count(s); at += 16) {
        uint64_t k = spool_count(s) - at < 16 ? spool_count(s) - at : 16;
        if (spool_read(s, at, k, rows, &block, &e) < 0)
            abort();
        for (uint64_t i = 0; i < k; i++)
            if (rows[i].error[rows[i].error_len] != '\0')
                abort();
    }
    spool_close(&s);
    buf_clear(&block);
    unlink(path);
    return 0;
}
