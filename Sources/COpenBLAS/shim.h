// The C interface of OpenBLAS as it is, and the one routine of its LAPACK that we call.
#include <cblas.h>

// Fortran interface of LAPACK (netlib dsyevd.f); the last two arguments are the hidden lengths of
// the strings. Debian's OpenBLAS carries it, but not LAPACKE.
void dsyevd_(const char *job, const char *triangle, const int *order, double *matrix,
             const int *leading, double *values, double *work, const int *work_count,
             int *integer_work, const int *integer_work_count, int *status, size_t job_length,
             size_t triangle_length);
