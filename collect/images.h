/* What collections keep in the cache: QEMU builds, guest images, disk images, unpacked scripts, source packages. */
#pragma once
#include <stdbool.h>

#include "proto/base/err.h"
#include "proto/lib/json.h"

/* Held by a collection from its preparation to its end, so that nothing is removed under it. -1 when that cannot be noted (then
 * nothing can be prepared either). Close it to let go. */
int images_hold(struct err *e);

/* [{kind, id, bytes, made, current, path}]; current: what a collection by this program would take. kind: qemu, image, disk,
 * scripts, source, unfinished (of a build that was killed). Looks only, builds nothing. New reference. */
json_t *images_list(void);

/* Remove what is not current: all of it, or with n > 0 the items with these prefixes of ids. all: current ones too.
 * *ret: what was removed (would be, when dry), as in the list; new reference. -EBUSY while a collection runs on this host;
 * -ENOENT, -SF_EUSAGE for a prefix of nothing, of several or of a current item. */
int images_clean(char *const prefix[], int n, bool all, bool dry, json_t **ret, struct err *e);
