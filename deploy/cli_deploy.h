/* Verbs of this folder: deploy init|check|up|status|down|logs. */
#pragma once
#include "proto/base/opt.h"

extern const struct verb deploy_verbs[];
