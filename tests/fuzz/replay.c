/* Feeds each file of a corpus folder to a fuzz target, for builds without libFuzzer. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>

#include "proto/base/buf.h"
#include "proto/base/clean.h"
#include "proto/base/file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int main(int argc, char **argv)
{
    unsigned files = 0;
    if (argc != 2)
        return 2;
    DIR *d = opendir(argv[1]);
    if (!d) {
        fprintf(stderr, "%s: no corpus\n", argv[1]);
        return 1;
    }
    for (struct dirent *f; (f = readdir(d));) {
        if (f->d_name[0] == '.')
            continue;
        CLEANUP(freep) char *path = path_fmt("%s/%s", argv[1], f->d_name);
        CLEANUP(buf_clear) struct buf b = BUF_INIT(16u << 20);
        struct err e;
        if (!path || file_read(path, &b, &e) < 0) {
            closedir(d);
            return 1;
        }
        LLVMFuzzerTestOneInput(b.data ? b.data : (const uint8_t *)"", b.len);
        files++;
    }
    closedir(d);
    printf("%u files replayed\n", files);
    return files ? 0 : 1;
}
