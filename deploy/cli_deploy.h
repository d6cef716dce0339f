/* Verbs of this folder: deploy init|check|up|upgrade|drain|undrain|status|logs|down. */
#pragma once
#include "proto/base/opt.h"

extern const struct verb deploy_verbs[];
