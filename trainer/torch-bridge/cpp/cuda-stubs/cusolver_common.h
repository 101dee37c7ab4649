// The types of cusolver_common.h that libtorch's headers name. See README.md.
#pragma once

typedef enum { CUSOLVER_STATUS_SUCCESS = 0 } cusolverStatus_t;
