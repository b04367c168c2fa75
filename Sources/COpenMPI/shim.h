// MPI as it is, plus names for what MPI leaves as macros with casts, which Swift cannot import.
// Prefix w2svd_mpi_; nothing clever.
#ifndef W2SVD_COPENMPI_SHIM_H
#define W2SVD_COPENMPI_SHIM_H

#include <mpi.h>

static inline MPI_Comm w2svd_mpi_comm_world(void) { return MPI_COMM_WORLD; }
static inline MPI_Comm w2svd_mpi_comm_null(void) { return MPI_COMM_NULL; }
static inline MPI_Request w2svd_mpi_request_null(void) { return MPI_REQUEST_NULL; }
static inline MPI_Info w2svd_mpi_info_null(void) { return MPI_INFO_NULL; }
static inline MPI_Datatype w2svd_mpi_byte(void) { return MPI_BYTE; }
static inline MPI_Datatype w2svd_mpi_int64(void) { return MPI_INT64_T; }
static inline MPI_Errhandler w2svd_mpi_errors_return(void) { return MPI_ERRORS_RETURN; }
static inline MPI_Status *w2svd_mpi_status_ignore(void) { return MPI_STATUS_IGNORE; }

static const int w2svd_mpi_success = MPI_SUCCESS;
static const int w2svd_mpi_undefined = MPI_UNDEFINED;
static const int w2svd_mpi_thread_serialized = MPI_THREAD_SERIALIZED;
static const int w2svd_mpi_comm_type_shared = MPI_COMM_TYPE_SHARED;
static const int w2svd_mpi_max_error_string = MPI_MAX_ERROR_STRING;
static const int w2svd_mpi_max_library_version_string = MPI_MAX_LIBRARY_VERSION_STRING;

#endif
