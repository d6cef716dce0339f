/* Verbs that talk to a fleet: sweep, results, ls, cancel, hold, release, retry, drain, undrain, quickstart. */
#pragma once
#include "proto/base/opt.h"

extern const struct verb fleet_verbs[]; /* ends with a NULL name */
