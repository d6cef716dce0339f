/* Verbs `agent` and, for the agent's own use, `__task`. */
#pragma once
#include "proto/base/opt.h"

extern const struct verb agent_verbs[];
