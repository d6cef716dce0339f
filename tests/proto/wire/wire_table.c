/* Prints what belongs between the marks of proto/wire/README.md. With a folder as argument: writes one frame of each
 * message into it, as NAME.frame, or NAME.FIELDS.frame when fields were added later, unless there is one: the old frames
 * that must decode for ever. */
#include <errno.h>
#include <stdio.h>

#include "proto/base/clean.h"
#include "proto/base/file.h"
#include "tests/proto/wire/fill.h"
#include "tests/proto/wire/table.h"

int main(int argc, char **argv)
{
    static struct fill_mem mem;
    struct buf b = BUF_INIT(FRAME_MAX);
    struct rng r = { 1 };
    const struct wire_type *t;
    if (argc < 2) {
        wire_table(stdout);
        return 0;
    }
    for (size_t i = 0; (t = wire_type_at(i)); i++) {
        char added[32] = "";
        if (wire_added(t->type))
            snprintf(added, sizeof(added), ".%zu", t->part.n);
        CLEANUP(freep)
        char *path = path_fmt("%s/v%d-%s%s.frame", argv[1], WIRE_VERSION, t->part.name, added);
        struct msg m = fill_msg(t, FILL_RANDOM, &r, &mem);
        struct err e;
        if (msg_encode(&m, &b, &e) < 0 ||
            (file_write(path, b.data, b.len, 0644, false, &e) < 0 && e.code != EEXIST)) {
            fprintf(stderr, "%s\n", e.text);
            return 1;
        }
    }
    fill_clear(&mem);
    buf_clear(&b);
    return 0;
}
