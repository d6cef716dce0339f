/* Key files and the allow-list.
 *
 * A secret file FILE (mode 0600) is one line `siofleet-secret 1 ROLE NAME PUBLIC SECRET`, its
 * public half FILE.pub is one line `siofleet-key 1 ROLE NAME PUBLIC`; keys are 40 characters of Z85
 * (CURVE25519, made by libzmq). The allow-list of a coordinator is a folder, DIR/keys/allowed, with
 * one NAME.pub for each key that may connect: adding and revoking are a rename and an unlink, so
 * they work while the coordinator runs and cannot be half done.
 */
#pragma once
#include <stddef.h>

#include "proto/base/err.h"
#include "proto/base/opt.h"
#include "proto/wire/msg.h"

enum { KEY_Z85_LEN = 41, KEY_NAME_LEN = 65 }; /* with the final 0 */

/* What a public key file says. name: 1..64 of A-Z a-z 0-9 . _ -, not starting with '.' or '-'. */
struct key_pub {
    enum role role;
    char name[KEY_NAME_LEN];
    char z85[KEY_Z85_LEN];
};

struct key_pair {
    struct key_pub pub;
    char secret[KEY_Z85_LEN]; /* key_clear() wipes it */
};

/* Make a pair and write FILE (0600) and FILE.pub. Existing files are never overwritten: -EEXIST.
 * -SF_EUSAGE for a bad name. ret may be NULL. */
int key_new(const char *path, enum role role, const char *name, struct key_pair *ret,
            struct err *e);

/* Read a secret file. -SF_EREFUSED when others may read it (the text tells the chmod), -SF_EFORMAT
 * when it is none or its halves do not fit together, -errno when unreadable. */
int key_load(const char *path, struct key_pair *ret, struct err *e);
int key_load_pub(const char *path, struct key_pub *ret, struct err *e);
void key_clear(struct key_pair *k);

/* One public line of n bytes (an end of line may follow, nothing else). place names it in errors.
 * -SF_EFORMAT. */
int key_parse_pub(const char *text, size_t n, const char *place, struct key_pub *ret,
                  struct err *e);
/* The same for the line of a secret file; does not check that the halves fit. */
int key_parse(const char *text, size_t n, const char *place, struct key_pair *ret, struct err *e);

/* The folder of the allow-list of a data directory: DIR/keys/allowed. Owned; NULL without memory.
 */
char *keys_dir(const char *data);

/* Allow a public key. Idempotent. -EEXIST when the name is taken by another key or the key by
 * another name, -SF_EUSAGE for a coordinator's key. Makes the folder (0700). Durable on return. */
int keys_allow(const char *data, const struct key_pub *pub, struct err *e);

/* Take back what is allowed under this name. -ENOENT (exit 1) when there is none. A running
 * coordinator lets the key in no more from then on, and drops its connections within a second. */
int keys_revoke(const char *data, const char *name, struct err *e);

/* All allowed keys, by name. *ret is owned (free()). A folder that is not there is an empty list. A
 * file that is not a public key is skipped and logged once a call: one bad file must not lock
 * everybody out. */
int keys_list(const char *dir, struct key_pub **ret, size_t *ret_n, struct err *e);

/* `keys new|allow|revoke|ls`. */
extern const struct verb keys_verbs[];
