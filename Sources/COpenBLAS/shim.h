// The C interfaces of OpenBLAS (cblas.h) and LAPACKE as they are; nothing clever.
#include <cblas.h>
#include <lapacke.h>
