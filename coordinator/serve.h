/* The coordinator's process: one thread, one loop over the link, signals and time. hub.h says how a turn goes.
 *
 *     DIR/lock, DIR/store.db   store.h; one coordinator a folder
 *     DIR/cas/                 artefacts, proto/cas
 *     DIR/keys/                coordinator{,.pub}, admin{,.pub} (role user), allowed/; made at the first start
 */
#pragma once
#include "coordinator/hub.h"

/* Until SIGTERM or SIGINT; a second one stops at once. Returns 0; -ECANCELED after a second signal; -EADDRINUSE, -EBUSY (store
 * locked), -SF_EFORMAT, -SF_EINTEGRITY, -errno with one line in *e. Blocks signals of the calling thread. */
int coordinator_run(const struct coordinator_conf *conf, struct err *e);
