// The C interface of zstd as it is; nothing clever.
#include <zstd.h>
#include <zstd_errors.h>
