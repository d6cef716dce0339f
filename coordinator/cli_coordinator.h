/* Verb `coordinator`. */
#pragma once
#include "proto/base/opt.h"

extern const struct verb coordinator_verbs[];
