// The types of cublasLt.h that libtorch's headers name. See README.md.
#pragma once

typedef struct cublasLtContext* cublasLtHandle_t;
