/* The coordinator's allow-list, wherever the coordinator lives: a data folder on this machine, or the host of the list
 * that `deploy coordinator` put it on. Calls from any thread; they take turns. */
#pragma once
#include "proto/base/err.h"
#include "proto/link/keys.h"

struct allow;
struct job_plan;
struct host;

/* The coordinator's data folder, when server_key is DATA/keys/coordinator.pub on this machine; else NULL. Owned. */
char *allow_data_of(const char *server_key);
int allow_local(const char *data, struct allow **ret, struct err *e);
/* host: borrowed, its data folder is the coordinator's. Connects at the first call. plan: as for any job; borrowed. */
int allow_remote(const struct job_plan *plan, const struct host *host, struct allow **ret,
                 struct err *e);
void allow_free(struct allow **a);

/* Let the key in. 1 = done, 0 = it was in already. Errors as of keys_allow(). */
int allow_add(struct allow *a, const struct key_pub *pub, struct err *e);
/* Not that key any more; another one of its name stays, as the host that shows a key may say any name. 1 = done, 0 = it was
 * not in. */
int allow_remove(struct allow *a, const struct key_pub *pub, struct err *e);
